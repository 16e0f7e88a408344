"""The reader whose prior is the training tasks, beside brute force."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from icdm.problems.family import make_family
from icdm.readers.memoriser import Memoriser
from icdm.trajectories.collect import draw_tasks, record

B, G, K = 6, 5, 2


@pytest.mark.parametrize("name", ["random_mdp", pytest.param("energy", marks=pytest.mark.slow)])
def test_decisions_are_those_of_the_posterior_over_the_tasks(name):
    """The posterior by a loop over steps in NumPy, for every decision of an episode."""
    family = make_family(name, horizon=4)
    known = draw_tasks(family, jax.random.key(0), G)
    tasks = known  # acting in the very tasks, so that nothing is impossible
    task_B = jnp.arange(B) % G
    context = record(family, tasks, task_B, jax.random.key(1), "uniform", K, 0.0)
    own = jax.tree.map(lambda x: x[:, 0], record(family, tasks, task_B, jax.random.key(2), "uniform", 1, 0.0))
    policy = Memoriser(known).policy(tasks, task_B, context, jax.random.key(3))
    problem = jax.tree.map(np.asarray, known.problem)
    q_GTSA = np.asarray(known.oracle.table)

    def likelihood(g, s, a, r, arrival):
        mean = problem.reward[g, s, a]
        paid = (mean if r > 0.5 else 1 - mean) if name == "random_mdp" else float(abs(r - mean) < 1e-4)
        return problem.transition[g, a, s, arrival] * paid

    weight_BG = np.ones((B, G))
    for b in range(B):
        for k in range(K):
            for t in range(4):
                step = (np.asarray(x)[b, k, t] for x in context.steps)
                s, a, r, arrival = step
                weight_BG[b] *= [likelihood(g, s, a, r, arrival) for g in range(G)]
    carry = policy.init(task_B)
    for t in range(4):
        action, q_BA, carry = policy.act(carry, own.observation[:, t], jax.random.key(0))
        share_BG = weight_BG / weight_BG.sum(1, keepdims=True)
        expected = np.stack([share_BG[b] @ q_GTSA[:, t, own.observation[b, t]] for b in range(B)])
        np.testing.assert_allclose(q_BA, expected, rtol=2e-4, atol=1e-5)
        np.testing.assert_array_equal(action, np.asarray(q_BA).argmax(-1))
        carry = policy.observe(carry, own.action[:, t], own.reward[:, t])
        for b in range(B):
            s, a, r = (np.asarray(x)[b, t] for x in (own.observation, own.action, own.reward))
            weight_BG[b] *= [likelihood(g, s, a, r, own.observation[b, t + 1]) for g in range(G)]
