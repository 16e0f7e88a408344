"""The value of a policy from a log of another's episodes alone.

E episodes, T steps, S states, which are the observations, A actions, C = S A pairs, I recorded steps. All numbers
float64. rho_t = pi(a_t | h_t) / b(a_t | h_t) is the ratio of the target's to the behaviour's probability, rho_{0:t} its
product up to step t. Q counts bootstrap samples.
"""

import dataclasses
import functools
import math

import numpy as np

from icdm.errors import UserError
from icdm.intervals import central

RESAMPLES = 1000
REFITS = 100  # bootstrap samples of fitted-Q evaluation, each of which is fitted anew
AT_ONCE = 50  # bootstrap samples that are in memory together
FOLDS = 2
TINY = 1e-300  # a sum of weights that is 0 divides 0
STANDARD_ERRORS, LEAST_ERROR = 3.0, 0.1  # how far the mean weight may be from 1: by chance, and in any case


@dataclasses.dataclass(frozen=True)
class LoggedEpisodes:
    """Recorded episodes, padded to T steps.

    Attributes:
      observation: (E, T + 1) int; action: (E, T) int; reward: (E, T).
      valid: (E, T) bool, steps that took place.
      behavior: (E, T) probability that the behaviour took the recorded action.
      n_observations, n_actions: S, A; an observation S was not recorded.
      discount: per step.
      terminal: (E, T) bool, steps after which the episode had ended by itself: nothing follows. After a last step that
        is not terminal only the recording stopped. None if this was not recorded: then episodes that stop before step T
        are taken for ended, and also those that stop at step T in an observation in which others stop earlier and none
        goes on.
    """

    observation: np.ndarray
    action: np.ndarray
    reward: np.ndarray
    valid: np.ndarray
    behavior: np.ndarray
    n_observations: int
    n_actions: int
    discount: float = 1.0
    terminal: np.ndarray | None = None

    def __post_init__(self):
        if self.terminal is None:
            object.__setattr__(self, "terminal", self._seemingly_terminal())
        if (self.terminal & ~self.last).any():
            row, t = np.argwhere(self.terminal & ~self.last)[0]
            raise UserError(f"terminal of episode {row}, step {t}: the episode goes on after it, or has ended before")
        bad = self.valid & ~((self.behavior > 0) & (self.behavior <= 1))
        if bad.any():
            row, t = np.argwhere(bad)[0]
            raise UserError(
                f"behavior_probability {self.behavior[row, t]:g} of episode {row}, step {t}: give numbers in (0, 1], "
                "or estimate them with estimated_behavior"
            )

    @property
    def n(self) -> int:
        return len(self.action)

    @property
    def last(self) -> np.ndarray:
        """Whether each step is the last of its episode, (E, T) bool."""
        return self.valid & ~np.pad(self.valid[:, 1:], [(0, 0), (0, 1)])

    @functools.cached_property
    def transitions(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Of the I steps that took place: the pair (s, a) of each; whether it is known what followed it; the distinct
        (s, a, s') of those where it is, pair (S + 1) + s', in which S is the end; and which of these each is."""
        S, T = self.n_observations, self.action.shape[1]
        pair_I = (self.observation[:, :-1] * self.n_actions + self.action)[self.valid]
        next_I = np.where(self.terminal, S, self.observation[:, 1:])[self.valid]
        unknown = self.last & ~self.terminal & (self.observation[:, 1:] == S) & (np.arange(T) == T - 1)
        known_I = ~unknown[self.valid]
        key, place = np.unique(pair_I[known_I].astype(np.int64) * (S + 1) + next_I[known_I], return_inverse=True)
        return pair_I, known_I, key, place

    def _seemingly_terminal(self) -> np.ndarray:
        early = self.last & (np.arange(self.valid.shape[1]) < self.valid.shape[1] - 1)
        n = self.n_observations + 1
        stopped = np.bincount(self.observation[:, 1:][early], minlength=n) > 0
        acted_in = np.bincount(self.observation[:, :-1][self.valid], minlength=n) > 0
        return early | self.last & (stopped & ~acted_in)[self.observation[:, 1:]]

    def __getitem__(self, index: slice | np.ndarray) -> "LoggedEpisodes":
        return dataclasses.replace(
            self,
            observation=self.observation[index],
            action=self.action[index],
            reward=self.reward[index],
            valid=self.valid[index],
            behavior=self.behavior[index],
            terminal=self.terminal[index],
        )


def mean_by_observation(observation: np.ndarray, valid: np.ndarray, chance_ETA: np.ndarray, n: int) -> np.ndarray:
    """Mean of the action probabilities over all steps taken in an observation, (n, A); uniform where none was.

    Of a policy that remembers the past it is the nearest one that looks at the observation alone.
    """
    state_I, chance_IA = observation[:, :-1][valid], chance_ETA[valid]
    visits_S1 = np.bincount(state_I, minlength=n)[:, None]
    total_SA = np.stack([np.bincount(state_I, chance_I, n) for chance_I in chance_IA.T], -1)
    return np.where(visits_S1 > 0, total_SA / np.maximum(visits_S1, 1), 1 / chance_ETA.shape[-1])


def estimated_behavior(
    observation: np.ndarray, action: np.ndarray, valid: np.ndarray, n_observations: int, n_actions: int
) -> np.ndarray:
    """Frequencies of the actions in each observation, (S, A), where no probabilities were recorded."""
    return mean_by_observation(observation, valid, np.eye(n_actions)[action], n_observations)


def doubly_robust_terms(log: LoggedEpisodes, target_ETA: np.ndarray) -> np.ndarray:
    """What each episode adds to the estimate `dr` of `off_policy_values`, (E,): its mean is the estimate."""
    weight_ET = cumulative_ratios(log, target_ETA)
    residual_ET, expected_ET = doubly_robust_steps(log, target_ETA, None)
    return (weight_ET * residual_ET + _before(weight_ET) * expected_ET).sum(1)


def off_policy_values(
    log: LoggedEpisodes, target_ETA: np.ndarray, target_TSA: np.ndarray | None = None, clip: float = math.inf
) -> dict:
    """Every estimate that the log admits, each {"mean", "ci95", "n_episodes"[, "effective_sample_size"]}.

        is     mean_i rho_{0:T} sum_t gamma^t r_t
        pdis   mean_i sum_t gamma^t rho_{0:t} r_t                                    (Precup et al., 2000)
        wis    sum_i rho_{0:T} G_i / sum_i rho_{0:T}
        pdwis  sum_t gamma^t sum_i w_t r_t,  w_t = rho_{0:t} / sum_i rho_{0:t}       (Thomas, 2015, CWPDIS)
        dr     mean_i sum_t gamma^t [rho_{0:t} (r_t - Q(s_t, a_t)) + rho_{0:t-1} V(s_t)]  (Jiang and Li, 2016),
               V(s) = sum_a pi(a | h_t) Q(s, a), with the Q of fitted-Q evaluation on the other half of the log
        wdr    sum_i sum_t gamma^t [w_t (r_t - Q(s_t, a_t)) + w_{t-1} V(s_t)]        (Thomas and Brunskill, 2016)
        fqe    mean_i V_0(s_0) of fitted-Q evaluation (Le, Voloshin, Yue, 2019), tabular; with target_TSA only

    Args:
      target_ETA: the target's probabilities at each recorded step; it may remember the episode's past.
      target_TSA: the same policy as a table (T or 1, S, A) if it is Markov, or a table near it.
      clip: the largest rho_{0:t}; above it weights are cut, which biases all estimates but fqe.

    Intervals are 95 % bootstrap intervals over episodes; the Q of dr and wdr is not fitted anew. The effective sample
    size is (sum w)^2 / sum w^2 of the weights rho_{0:T}.

    Raises:
      UserError: probabilities of another shape, or fewer episodes than two.
    """
    if target_ETA.shape != (*log.action.shape, log.n_actions):
        raise UserError(f"target has shape {target_ETA.shape}: give {(*log.action.shape, log.n_actions)}")
    if log.n < 2:
        raise UserError(f"{log.n} episodes: at least 2 are needed")
    weight_ET = np.minimum(cumulative_ratios(log, target_ETA), clip)
    before_ET = _before(weight_ET)
    paid_ET = np.where(log.valid, log.reward, 0.0) * log.discount ** np.arange(log.action.shape[1])
    whole_E, return_E = weight_ET[:, -1], paid_ET.sum(1)
    residual_ET, expected_ET = doubly_robust_steps(log, target_ETA, target_TSA)
    terms = {
        "is": whole_E * return_E,
        "pdis": (weight_ET * paid_ET).sum(1),
        "dr": (weight_ET * residual_ET + before_ET * expected_ET).sum(1),
    }

    def estimates(count_QE: np.ndarray) -> dict[str, np.ndarray]:
        """The estimates from each episode so many times, each (Q,)."""
        found = {name: count_QE @ term_E / count_QE.sum(1) for name, term_E in terms.items()}
        found["wis"] = self_normalised(count_QE, whole_E[:, None], return_E[:, None])
        found["pdwis"] = self_normalised(count_QE, weight_ET, paid_ET)
        found["wdr"] = self_normalised(count_QE, weight_ET, residual_ET)
        found["wdr"] += self_normalised(count_QE, before_ET, expected_ET)
        return found

    rng, resampled = np.random.default_rng(0), []
    for _ in range(RESAMPLES // AT_ONCE):
        count_QE = np.stack([np.bincount(i, minlength=log.n) for i in rng.integers(0, log.n, (AT_ONCE, log.n))])
        resampled.append(estimates(count_QE.astype(np.float64)))
    ess = effective_sample_size(whole_E)
    found = {}
    for name, value in estimates(np.ones((1, log.n))).items():
        found[name] = _estimate(value[0], np.concatenate([part[name] for part in resampled]), log.n, ess)
    if target_TSA is not None:
        value = fitted_value(log, target_TSA, np.ones(log.n))
        draws = np.random.default_rng(0).integers(0, log.n, (REFITS, log.n))
        refits = [fitted_value(log, target_TSA, np.bincount(i, minlength=log.n)) for i in draws]
        found["fqe"] = _estimate(value, np.array(refits), log.n)
    return found


def self_normalised(count_QE: np.ndarray, weight_ET: np.ndarray, term_ET: np.ndarray) -> np.ndarray:
    """sum_t of the weighted mean over episodes of each step's terms, with each episode so many times, (Q,)."""
    return (count_QE @ (weight_ET * term_ET) / np.maximum(count_QE @ weight_ET, TINY)).sum(1)


def effective_sample_size(weight_E: np.ndarray) -> float:
    """(sum w)^2 / sum w^2."""
    return float(weight_E.sum() ** 2 / np.maximum((weight_E**2).sum(), TINY))


def weights_err(weight_E: np.ndarray) -> bool:
    """Whether the mean of the weights rho_{0:T}, not clipped, says that the behaviour's probabilities are wrong.

    With the right ones its expectation is 1. It errs if it is away from 1 by more than a tenth and by more than three
    standard errors.
    """
    error = weight_E.std(ddof=1) / math.sqrt(len(weight_E))
    return bool(abs(weight_E.mean() - 1) > max(LEAST_ERROR, STANDARD_ERRORS * error))


def cumulative_ratios(log: LoggedEpisodes, target_ETA: np.ndarray) -> np.ndarray:
    """rho_{0:t}, (E, T); steps that did not take place leave it as it is."""
    taken_ET = np.take_along_axis(target_ETA, log.action[..., None], -1)[..., 0]
    return np.cumprod(np.where(log.valid, taken_ET / np.where(log.valid, log.behavior, 1.0), 1.0), axis=1)


def untried(log: LoggedEpisodes, target_ETA: np.ndarray) -> np.ndarray:
    """Share of the recorded steps that are in each observation and on which the target would take an action that was
    never taken there, (S,): where the log says nothing of it."""
    state_I, chance_IA = log.observation[:, :-1][log.valid], target_ETA[log.valid]
    pairs_C = np.bincount(state_I * log.n_actions + log.action[log.valid], minlength=log.n_observations * log.n_actions)
    never_IA = (pairs_C == 0).reshape(-1, log.n_actions)[state_I]
    return np.bincount(state_I, (chance_IA * never_IA).sum(-1), log.n_observations) / len(state_I)


def doubly_robust_steps(
    log: LoggedEpisodes, target_ETA: np.ndarray, target_TSA: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """(gamma^t (r_t - Q(s_t, a_t)), gamma^t V(s_t)), each (E, T), 0 where no step took place.

    Weighted by rho_{0:t} and rho_{0:t-1} and added up, they are the terms of the doubly robust estimate. Where
    recording stopped before step T and not at the end of the episode, gamma V(s_{t+1}) is added to r_t for what would
    have followed.

    The Q-function of an episode is fitted to the episodes of the other fold. It is that of the target where
    it is given as a table, else that of the behaviour: any Q leaves the estimate unbiased.
    """
    fold_E = np.arange(log.n) % FOLDS
    discount_T = log.discount ** np.arange(log.action.shape[1])
    residual_ET, expected_ET = np.empty(log.action.shape), np.empty(log.action.shape)
    for fold in range(FOLDS):
        mine, others = log[fold_E == fold], log[fold_E != fold]
        q_TSA = fitted_q(others, target_TSA, np.ones(others.n))
        state = np.minimum(mine.observation[:, :-1], log.n_observations - 1)
        q_ETA = q_TSA[np.arange(q_TSA.shape[0]), state]
        taken = np.take_along_axis(q_ETA, mine.action[..., None], -1)[..., 0]
        expected = (target_ETA[fold_E == fold] * q_ETA).sum(-1)
        # What follows a step is the value of the next one, whether that was recorded or only what it began with.
        cut = mine.last & ~mine.terminal & (mine.observation[:, 1:] < log.n_observations)
        following = np.pad(expected[:, 1:], [(0, 0), (0, 1)])
        paid = mine.reward + np.where(cut, log.discount * following, 0.0)
        residual_ET[fold_E == fold] = discount_T * np.where(mine.valid, paid - taken, 0.0)
        expected_ET[fold_E == fold] = discount_T * np.where(mine.valid, expected, 0.0)
    return residual_ET, expected_ET


def fitted_q(log: LoggedEpisodes, target_TSA: np.ndarray | None, weight_E: np.ndarray) -> np.ndarray:
    """Q_t(s, a) = mean over the log's steps from (s, a) of r + gamma V_{t+1}(s'), (T, S, A).

    The value of an action that was never taken in s is the mean over all steps from s or, if there are none, over all
    steps of the log. V_{t+1}(s) = sum_a pi(a | t + 1, s) Q_{t+1}(s, a); it is 0 after a terminal step, and after a step
    before T that leads to no recorded observation. A step T that leads to none says nothing of what follows earlier
    ones. Without a target pi is the behaviour, as estimated from the log. `weight_E` counts each episode so many times.
    """
    S, A, T = log.n_observations, log.n_actions, log.action.shape[1]
    pair_I, known_I, key, place = log.transitions
    weight_I = np.broadcast_to(weight_E[:, None], log.valid.shape)[log.valid].astype(np.float64)
    n_C = np.bincount(pair_I, weight_I, S * A)
    reward_C = np.bincount(pair_I, weight_I * log.reward[log.valid], S * A) / np.maximum(n_C, TINY)
    count_I, (from_I, to_I) = np.bincount(place, weight_I[known_I], len(key)), np.divmod(key, S + 1)
    some_C = np.maximum(np.bincount(pair_I, weight_I * known_I, S * A), TINY)
    n_SA = n_C.reshape(S, A)
    n_S1 = n_SA.sum(1, keepdims=True)
    if target_TSA is None:
        target_TSA = (n_SA / np.maximum(n_S1, TINY))[None]
    target_TSA = np.broadcast_to(target_TSA, (T, S, A))
    q_TSA, v_S = np.empty((T, S, A)), np.zeros(S + 1)
    for t in reversed(range(T)):
        future_C = np.bincount(from_I, count_I * v_S[to_I], S * A) / some_C
        q_SA = (reward_C + log.discount * future_C).reshape(S, A)
        total_S1 = (n_SA * q_SA).sum(1, keepdims=True)
        mean_S1 = np.where(n_S1 > 0, total_S1 / np.maximum(n_S1, TINY), total_S1.sum() / n_S1.sum())
        q_TSA[t] = np.where(n_SA > 0, q_SA, mean_S1)
        v_S[:S] = (target_TSA[t] * q_TSA[t]).sum(-1)
    return q_TSA


def fitted_value(log: LoggedEpisodes, target_TSA: np.ndarray, weight_E: np.ndarray) -> float:
    """Mean over the log's first observations of the fitted value."""
    q_SA = fitted_q(log, target_TSA, weight_E)[0]
    v_S = (target_TSA[0] * q_SA).sum(-1)
    return float((weight_E * v_S[log.observation[:, 0]]).sum() / weight_E.sum())


def _before(weight_ET: np.ndarray) -> np.ndarray:
    """The weights of the step before, 1 at the first."""
    return np.concatenate([np.ones((len(weight_ET), 1)), weight_ET[:, :-1]], 1)


def _estimate(value: float, draws: np.ndarray, n: int, ess: float | None = None) -> dict:
    found = {"mean": float(value), "ci95": central(draws), "n_episodes": int(n)}
    return found if ess is None else found | {"effective_sample_size": ess}
