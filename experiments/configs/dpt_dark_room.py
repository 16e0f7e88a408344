"""The Decision-Pretrained Transformer's Dark Room: 5 x 5 cells, a hidden goal, from the peer's own data.

    python -m experiments.run --config=experiments/configs/dpt_dark_room.py --workdir=runs/dpt_dark_room \
        --config.data=PATH/dpt_darkroom_5x5_h25.npz

A context is 25 independent steps; a query is asked before the first and after each of them. 20 goals to learn
from, 5 held out. Cells are read by their coordinates; contexts are moved over the grid closed to a torus and
reflected at random, so that every cell comes to be a goal (the held-out ones too, of moved steps of the others);
contexts are drawn anew from all steps with the same goal, queries from all asked about it.
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
