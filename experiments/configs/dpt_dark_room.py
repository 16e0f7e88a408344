"""The Dark Room of DPT (Lee et al., 2023): 5 x 5 cells, an unknown goal, from its own data.

    python -m experiments.run --config=experiments/configs/dpt_dark_room.py --workdir=runs/dpt_dark_room \
        --config.data=PATH/dpt_darkroom_5x5_h25.npz

A context is 25 independent steps; a query is asked before the first and after each of them. 20 goals are for
training, 5 are held out. Cells are read by their coordinates. Contexts are translated at random over the grid, closed
to a torus, and reflected, so that every cell becomes a goal (the held-out ones too, in translated steps of the
others). Contexts are drawn again from all steps with the same goal, and queries from all queries about it.
"""

from experiments.configs import base


def get_config():
    c = base.get_config()
    c.family = "dark_room"
    c.horizon = 25
    c.problem = dict(size=5)
    c.context.episodes = 25
    c.query_behavior = "uniform"
    c.reward_bins = 2
    c.model.update(width=32, layers=4, heads=1, kv_heads=1, hidden=64, rotary_base=0.0)
    c.pretrain.update(steps=0, mixture=())
    c.layout = "single_steps"
    c.fine_tune.update(steps=1500, learning_rate=6e-3)
    c.evaluation.update(tasks=5, episodes=40)
    return c
