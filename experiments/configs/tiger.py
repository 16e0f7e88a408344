"""Tiger with an unknown accuracy, bite and treasure, K = 4 oracle episodes.

    python -m experiments.run --config=experiments/configs/tiger.py --workdir=runs/tiger

How often to listen before a door is opened depends on the task, which must be inferred from the context.
Temperature and labels are in units of the rewards, which reach -100.
"""

from experiments.configs import base


def get_config():
    c = base.get_config()
    c.family = "tiger"
    c.horizon = 10
    c.problem = dict(discount=0.95)
    c.context.episodes = 4
    c.pretrain.update(steps=200, mixture=("tiger:horizon=10",))
    c.fine_tune.update(steps=1000, labels="advantage", temperature=10.0, pool=512)
    c.evaluation.update(tasks=200, episodes=20, rows=2000)
    return c
