"""The energy chain with T = 5: the main job in a minute or two.

python -m experiments.run --config=experiments/configs/demo.py --workdir=runs/demo
"""

from experiments.configs import base


def get_config():
    c = base.get_config()
    c.pretrain.steps = 200
    c.pretrain.mixture = ("energy:horizon=5", "random_mdp")
    return c
