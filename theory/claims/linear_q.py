"""Q*_h of a linear MDP is linear in the features, for every step h, and so is Q^pi_h of any policy."""

import jax
import numpy as np

from icdm.families.linear_mdp import optimal_weights, sample_linear_mdp, simplex_features
from theory.book import Book
from theory.figures import GREY, panels
from theory.ledger import Claim


def check(config) -> tuple[Claim, object]:
    features, transition, reward, weights = sample(config)
    rng = np.random.default_rng(config.seed)
    q = backward(transition, reward, lambda q_NSA: q_NSA.max(-1))
    policy = rng.dirichlet(np.ones(config.actions), (config.problems, config.states))
    q_random = backward(transition, reward, lambda q_NSA: (policy * q_NSA).sum(-1))
    scrambled = rng.dirichlet(np.full(config.states, 0.3), transition.shape[:-1])
    q_control = backward(scrambled, reward, lambda q_NSA: q_NSA.max(-1))

    residual, residual_random, residual_control = (fit_residual(features, x) for x in (q, q_random, q_control))
    closed_form = np.abs(q - np.einsum("nsaf,ntf->ntsa", features, weights)).max((2, 3))
    book = Book(config, rng)
    book.measure("residual", np.max, residual.max(-1), at_most=1e-10)
    book.enter("residual_of_random_policy", residual_random.max(), at_most=1e-10)
    book.enter("closed_form_error", closed_form.max(), at_most=1e-10)
    book.control("residual_where_transitions_are_not_linear", residual_control[:, :-1].min())
    claim = book.close(
        id="linear_q",
        claim="Q*_h(s, a) = <phi(s, a), w*_h> for every step h of a linear MDP",
        source="Jin et al., COLT 2020, Prop. 2.3",
        metric="largest |Q*_h(s, a) - least-squares fit| over problems, steps, states and actions; the same "
        "for the Q of a random policy; largest |Q*_h(s, a) - <phi(s, a), w*_h>| with w*_h from the recursion",
    )
    return claim, draw(residual, residual_random, residual_control)


def sample(config):
    """Random linear MDPs: features (N, S, A, F), P_h (N, T, S, A, S), r_h (N, T, S, A), w*_h (N, T, F)."""

    def one(key):
        feature_key, problem_key = jax.random.split(key)
        features = simplex_features(feature_key, config.states, config.actions, config.dimension)
        problem = sample_linear_mdp(problem_key, features, config.horizon)
        return features, problem.transition(), problem.reward(), optimal_weights(problem)

    with jax.enable_x64(True):
        keys = jax.random.split(jax.random.key(config.seed), config.problems)
        return jax.tree.map(np.asarray, jax.jit(jax.vmap(one))(keys))


def backward(transition_NTSAY, reward_NTSA, value_of):
    """Tabular backward induction, which does not use the features; Q (N, T, S, A)."""
    q = np.empty_like(reward_NTSA)
    value_NS = np.zeros(reward_NTSA.shape[:1] + reward_NTSA.shape[2:3])
    for h in reversed(range(reward_NTSA.shape[1])):
        q[:, h] = reward_NTSA[:, h] + np.einsum("nsay,ny->nsa", transition_NTSAY[:, h], value_NS)
        value_NS = value_of(q[:, h])
    return q


def fit_residual(features_NSAF, q_NTSA):
    """Largest residual of the least-squares fit of Q_h on the features, (N, T)."""
    n, steps = q_NTSA.shape[:2]
    phi = features_NSAF.reshape(n, -1, features_NSAF.shape[-1])
    target = q_NTSA.reshape(n, steps, -1).transpose(0, 2, 1)
    return np.abs(target - phi @ (np.linalg.pinv(phi) @ target)).max(1)


def draw(residual, residual_random, residual_control):
    figure, (axis,) = panels()
    steps = np.arange(1, residual.shape[1] + 1)
    axis.semilogy(steps, residual.max(0), "o-", label="optimal policy")
    axis.semilogy(steps, residual_random.max(0), "s-", label="random policy")
    axis.semilogy(steps, residual_control.max(0), "x--", color=GREY, label="transitions not linear (control)")
    axis.axhline(1e-10, color=GREY, linewidth=0.8, linestyle=":")
    axis.set(xlabel="step h", ylabel="largest residual of the linear fit", title="Q is linear in the features")
    axis.set_xticks(steps)
    axis.legend(loc="center right")
    return figure
