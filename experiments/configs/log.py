"""What to do, learned from a log of what others did and what came of it.

    python -m experiments.run --config=experiments/configs/log.py --workdir=runs/log --config.data=log.csv \
        [--config.columns="observation=hr action=dose reward=r t=hour episode_id=stay"]

Sizes, horizon and the range of rewards are those of the file. The labels are the best actions by values that are fitted
to the log, with pessimism for pairs that it holds rarely; --config.data_labels=imitation copies the recorded actions
instead. What was learned is valued from held-out episodes.
"""

from experiments.configs import base


def get_config():
    c = base.get_config()
    c.family = "recorded"
    c.horizon = 0
    c.problem = dict()
    c.data_labels = "pessimistic"
    c.context.episodes = 1
    c.query_behavior = "uniform"
    c.model.update(layers=2, max_length=4096)
    c.pretrain.update(steps=0, mixture=())
    c.fine_tune.update(steps=1000, learning_rate=3e-3)
    return c
