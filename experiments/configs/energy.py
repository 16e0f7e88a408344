"""The paper's energy chain, K = 2 oracle episodes.

python -m experiments.run --config=experiments/configs/energy.py --workdir=runs/energy --config.horizon=10
"""

from experiments.configs import base


def get_config():
    c = base.get_config()
    c.horizon = 15
    c.pretrain.mixture = ("energy:horizon=5", "energy:horizon=10", "energy:horizon=15", "random_mdp")
    return c
