"""Runs as in trained.py on a problem that is learned in seconds: three states, two actions, three decisions.

    python -m experiments.run --config=theory/configs/trained_small.py --workdir=runs/small
"""

from theory.configs import trained


def get_config(layout="transition"):
    c = trained.get_config(layout)
    c.horizon = 3
    c.problem.update(states=3, actions=2)
    c.model.update(width=32, heads=2, kv_heads=2, hidden=64)
    c.pretrain.update(steps=50, mixture=("random_mdp:states=3,actions=2,horizon=3",))
    c.fine_tune.update(steps=500)
    return c
