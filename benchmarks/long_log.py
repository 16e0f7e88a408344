"""An experiment on a log of ten million steps, to see how much memory it takes."""

from experiments.configs import base


def get_config():
    c = base.get_config()
    c.family = "recorded"
    c.horizon = 20
    c.problem = dict(states=700, actions=25)
    c.data_labels = "imitation"
    c.context.episodes = 4
    c.model.update(width=32, layers=2, heads=2, kv_heads=2, hidden=64)
    c.pretrain.update(steps=0, mixture=())
    c.fine_tune.update(steps=20)
    return c
