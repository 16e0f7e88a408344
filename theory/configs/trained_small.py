"""Runs as in trained.py on a problem that is learned in seconds: two states, two actions, two decisions.

python -m experiments.run --config=theory/configs/trained_small.py --workdir=runs/small
"""

from theory.configs import trained


def get_config(layout="transition"):
    c = trained.get_config(layout)
    c.horizon = 2
    c.problem.update(states=2, actions=2)
    c.model.update(width=32, heads=2, kv_heads=2, hidden=64)
    c.pretrain.update(steps=50, mixture=("random_mdp:states=2,actions=2,horizon=2",))
    c.fine_tune.update(steps=600, batch=64, learning_rate=6e-3, log_every=100, checkpoint_every=300)
    return c
