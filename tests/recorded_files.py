"""Tables of recorded steps that several test files use."""

import numpy as np

from icdm.logs.table import NOTHING, Rows

HEADER = "task_id,episode_id,t,observation,action,reward,terminal\n"
GOOD = HEADER + "A,e1,0,low,up,0.5,false\nA,e1,1,high,down,1,true\nB,e2,0,low,up,0.25,false\nB,e2,1,high,,,false\n"


def random_rows(rng, n_episodes=40, steps=7):
    """Episodes of 1..steps steps, some closed by an observation."""
    parts = []
    for episode in range(n_episodes):
        n = int(rng.integers(1, steps + 1))
        closed = episode % 2
        action = rng.integers(0, 4, n + closed)
        action[n:] = NOTHING
        parts.append((np.full(n + closed, episode // 5), np.full(n + closed, episode), np.arange(n + closed), action))
    task, episode, t, action = (np.concatenate(x) for x in zip(*parts))
    acted = action != NOTHING
    return Rows(
        task,
        episode,
        t,
        rng.integers(0, 9, len(t)),
        action,
        np.where(acted, rng.normal(size=len(t)), 0.0),
        rng.integers(-1, 4, len(t)),
        np.where(acted, rng.uniform(0.1, 1, len(t)), np.nan),
        np.zeros(len(t), bool),
    )


def write(path, text):
    path.write_text(text)
    return path
