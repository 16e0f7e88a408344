"""The paper's energy chain with a meter that is right with probability q (`problem.fidelity`), K = 2 oracle episodes.

    python -m experiments.run --config=experiments/configs/energy_pomdp.py --workdir=runs/energy_pomdp \\
        --config.problem.fidelity=0.5 --config.horizon=15
"""

from experiments.configs import paper_sweep


def get_config():
    c = paper_sweep.get_config()
    del c.sweep
    c.family = "energy_pomdp"
    c.horizon = 10
    c.problem = dict(discount=0.95, fidelity=0.8)
    return c
