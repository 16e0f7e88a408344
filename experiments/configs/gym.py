"""One environment of Gymnasium that holds its table, FrozenLake 4x4 or another (extra `gym`).

    python -m experiments.run --config=experiments/configs/gym.py --workdir=runs/gym
    python -m experiments.run --config=experiments/configs/gym.py --workdir=runs/cliff \\
        --config.problem.env=CliffWalking-v1

There is one task, so the intervals are over episodes, and training sees the task that it is measured on.
"""

from experiments.configs import base


def get_config():
    c = base.get_config()
    c.family = "gym"
    c.horizon = 20
    c.problem = dict(env="FrozenLake-v1", discount=1.0)
    c.context.update(episodes=2, behavior="mixture")
    c.pretrain.update(steps=0, mixture=())
    c.fine_tune.update(steps=300)
    c.evaluation.update(episodes=1000)
    return c
