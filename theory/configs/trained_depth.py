"""The runs in which reach is measured against depth: layered MDPs, models of 1 to 8 layers with equally many weights.

    python -m experiments.run --config=theory/configs/trained_depth.py:4 --workdir=runs/depth_4

Six layers of three states: from the first decision on, a state of layer k is k steps away whatever is done. As in the
config `planning` the labels are those of the posterior-mean planner, and positions of the context read one another. The
layers are not asked for iterates, which would put one backup in each: how far a model of so many layers looks ahead is
its own affair. Tasks come from a pool, episodes are new in every step; the loss on held-out tasks is in metrics.jsonl.

`loops` is one layer with as many weights, applied up to 8 times over and read after every time.
"""

from experiments.configs import planning

# Width, hidden units, and steps after which the loss on held-out tasks has flattened: 41,000 weights each.
SIZES = {
    "1": (64, 128, 2500),
    "2": (48, 80, 3500),
    "4": (32, 64, 6000),
    "8": (24, 40, 6000),
    "loops": (64, 128, 6000),
}


def get_config(layers="4"):
    c = planning.get_config()
    c.horizon = 6
    c.problem = dict(layers=6, states=3, actions=2, discount=1.0, concentration=0.05)
    c.context.update(episodes=10)
    tied, (width, hidden, steps) = layers == "loops", SIZES[layers]
    c.model.update(tied=tied, layers=8 if tied else int(layers), width=width, hidden=hidden, heads=2, kv_heads=2)
    c.fine_tune.update(steps=steps, batch=16, iterates=False, learning_rate=3e-3, checkpoint_every=500, log_every=100)
    c.fine_tune.update(pool=8192, validation=0.03, validate_every=300, patience=20)
    return c
