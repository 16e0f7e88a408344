"""The paper's energy chain, K = 2 oracle episodes.

python -m experiments.run --config=experiments/configs/energy.py --workdir=runs/energy --config.horizon=10
"""

from experiments.configs import base

# The MDP experiment of arXiv 2605.09009 (Zhang, Aghaei, Saghafian, 2026): gaps in % as printed there; those of
# fine_tuned are approximate and of Llama-2-7B.
PAPER = {
    "energy:horizon=5": {"random": "57.6", "fine_tuned": "3-5"},
    "energy:horizon=10": {"random": "49.6", "fine_tuned": "15"},
    "energy:horizon=15": {"random": "46.4", "fine_tuned": "15", "in_context": "43.2"},
}


def get_config():
    c = base.get_config()
    c.horizon = 15
    c.problem = dict(discount=0.95)
    c.published = PAPER
    c.pretrain.mixture = ("energy:horizon=5", "energy:horizon=10", "energy:horizon=15", "random_mdp")
    return c
