"""The runs in which reach is measured against depth: layered MDPs, and models of 1 to 8 layers with equally many weights.

    python -m experiments.run --config=theory/configs/trained_depth.py:4 --workdir=runs/depth_4

Six layers of three states: from the first decision on, a state of layer k is k steps away whatever is done. As in the
config `planning` the labels are those of the posterior-mean planner, and positions of the context read one another. The
layers are not asked for iterates, which would put one backup in each: how far a model of so many layers looks ahead is
its own affair.
"""

from experiments.configs import planning

SIZES = {1: (128, 256), 2: (88, 192), 4: (64, 128), 8: (48, 80)}  # width and hidden units: 0.16 million weights each


def get_config(layers="4"):
    c = planning.get_config()
    c.horizon = 6
    c.problem = dict(layers=6, states=3, actions=2, discount=1.0, concentration=0.05)
    c.context.update(episodes=12)
    width, hidden = SIZES[int(layers)]
    c.model.update(layers=int(layers), width=width, hidden=hidden)
    c.fine_tune.update(steps=3000, batch=32, iterates=False, log_every=50)
    return c
