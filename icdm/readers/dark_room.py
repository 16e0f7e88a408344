"""The Bayes floor of Dark Room: what a reader of independent steps can know of the best action.

B rows, K steps that were shown, A actions, S cells.
"""

import numpy as np

from icdm.families.dark_room import DarkRoom


def first_best_action(family: DarkRoom) -> np.ndarray:
    """(S goals, S states): the peer's oracle, which moves along x first, then along y, then stays."""
    x, y = np.divmod(np.arange(family.n_states), family.size)
    dx, dy = np.sign(x[:, None] - x[None]), np.sign(y[:, None] - y[None])
    return np.select([dx > 0, dx < 0, dy > 0, dy < 0], [0, 1, 2, 3], 4)


def optimal_action_probabilities(next_state_BK, reward_BK, query_B, family: DarkRoom) -> np.ndarray:
    """P(a is the oracle's action in the query state | the first k steps), (B, K + 1, A), for k = 0..K.

    The posterior over goals is uniform over the cells that may still hold it.
    """
    rows, steps = next_state_BK.shape
    action_BG = first_best_action(family)[:, query_B].T
    possible_BG = np.ones((rows, family.n_states), bool)
    found = np.zeros((rows, steps + 1, family.n_actions))
    for k in range(steps + 1):
        if k:
            here_BG = np.arange(family.n_states)[None] == next_state_BK[:, k - 1, None]
            possible_BG &= np.where(reward_BK[:, k - 1, None] > 0, here_BG, ~here_BG)
        for a in range(family.n_actions):
            found[:, k, a] = (possible_BG & (action_BG == a)).sum(-1)
    return found / found.sum(-1, keepdims=True)
