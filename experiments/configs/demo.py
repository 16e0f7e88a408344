"""The energy chain with T = 5: the main experiment in a minute or two.

python -m experiments.run --config=experiments/configs/demo.py --workdir=runs/demo

Some 2 minutes of two cores.
"""

from experiments.configs import energy


def get_config():
    c = energy.get_config()
    c.horizon = 5
    c.pretrain.steps = 200
    c.pretrain.mixture = ("energy:horizon=5", "random_mdp")
    return c
