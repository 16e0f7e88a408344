"""Decisions of a model that needs no training on the record at hand, beside those of certainty equivalence."""

import dataclasses
import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from icdm.errors import UserError
from icdm.logs.codings import remarks
from icdm.logs.log import Log, log_of
from icdm.oracles.backward_induction import backward_induction
from icdm.problems.counts import count
from icdm.problems.family import Family
from icdm.problems.mdp import MDP
from icdm.readers.counts_planners import maximum_likelihood
from icdm.runs.decide import Episode, begun, context_of, decided
from icdm.runs.decider import Decider
from icdm.runs.pretrained import pretrained_run
from icdm.runs.task_rows import own_codings, read_rows
from icdm.trajectories.trajectory import Trajectories


def decide_by_model(
    model: str | pathlib.Path,
    context: str | pathlib.Path | None,
    history: str | pathlib.Path | None = None,
    observation: str | None = None,
    task: str | None = None,
    horizon: int | None = None,
) -> dict:
    """The same of a model that was trained for problems of many sizes, and needs no training on the record.

    Beside it "certainty_equivalence" is {"action", "values"} of the model of observed frequencies, and "notes" says how
    the record was understood.

    Args:
      model: the directory that `icdm export --model` wrote, or the name of a model of the package: tabular.
      horizon: decisions in an episode; as many as in the longest episode by default.

    Raises:
      UserError: as `decide`, there is no context, or the record has more states or actions than the model.
    """
    if context is None:
        raise UserError(f"model {model} was trained on other problems: give a record of this one, --context FILE")
    codings = own_codings(pathlib.Path(context))
    recorded = read_rows(context, codings, task)
    episode = begun(recorded, codings, history, observation)
    longest = max(int(recorded.rows.t[recorded.rows.acted].max(initial=0)) + 1, len(episode.before) + 1)
    if horizon is not None and horizon < longest:
        raise UserError(f"--horizon {horizon}: there is an episode of {longest} steps, give at least so many")
    paid = [*recorded.rows.reward[recorded.rows.acted], *(reward for _, _, reward in episode.before)]
    low, high = min(paid, default=0.0), max(paid, default=0.0)
    states = codings["observation"].n + 1  # one more stands for whatever follows an end
    sizes = states, codings["action"].n, horizon or longest
    run = pretrained_run(model, *sizes, low, high if high > low else low + 1.0)
    log = log_of([recorded.rows], states - 1)
    read = _with_open_ends(context_of(log, run.layout), log, run.layout.n_observations)
    answer = decided(Decider(run), codings, read, episode, history)
    fitted = _certainty_equivalence(run.family, log, read, episode)
    names = list(answer["probabilities"])
    answer["certainty_equivalence"] = {
        "action": names[int(fitted.argmax())],
        "values": dict(zip(names, (fitted - fitted.mean()).tolist())),
    }
    return answer | {"notes": remarks(codings)}


def _with_open_ends(context: Trajectories | None, log: Log, nothing: int) -> Trajectories | None:
    """The context where an episode that stopped before its end, without a last observation, ends in `nothing`; the
    state that stands for whatever follows an end is kept for episodes that ended by themselves."""
    if context is None:
        return None
    steps_E1, over_E1 = log.steps[log.contexts[0]][:, None], _ended(log)[:, None]
    observation_EU = np.asarray(context.observation)[0]
    open_EU = (np.arange(observation_EU.shape[-1]) >= steps_E1) & (observation_EU == log.end) & ~over_E1
    return dataclasses.replace(context, observation=np.where(open_EU, nothing, observation_EU)[None])


def _ended(log: Log) -> np.ndarray:
    """Whether each context episode ended by itself, (E,)."""
    episodes = log.contexts[0]
    return log.terminal[log.first[episodes] + log.steps[episodes] - 1]


def _certainty_equivalence(family: Family, log: Log, context: Trajectories | None, episode: Episode) -> np.ndarray:
    """Q of the model of observed frequencies, of the context and the present episode, at what is observed now, (A,)."""
    arrivals = [*(seen for seen, _, _ in episode.before[1:]), episode.now]
    steps = [(*step, arrival) for step, arrival in zip(episode.before, arrivals)]
    terminal_S = np.zeros(family.n_states, bool)
    if context is not None:
        origin, action, reward, arrival = map(np.asarray, context.steps)
        known = np.asarray(context.valid) & (arrival < family.n_states)
        steps += list(zip(*(x[known].tolist() for x in (origin, action, reward, arrival))))
        over, last = _ended(log), log.steps[log.contexts[0]]
        terminal_S[np.asarray(context.observation)[0, np.flatnonzero(over), last[over]]] = True
    columns = tuple(np.array([step[i] for step in steps], kind) for i, kind in enumerate((int, int, float, int)))
    with jax.enable_x64(True):
        q_TSA = _plan_by_frequencies(columns, terminal_S, family.n_actions, family.horizon)
        return np.asarray(q_TSA)[len(episode.before), episode.now]


@functools.partial(jax.jit, static_argnums=(2, 3))
def _plan_by_frequencies(columns: tuple[jax.Array, ...], terminal_S: jax.Array, n_actions: int, horizon: int):
    S = terminal_S.shape[0]
    counts = count(*columns, jnp.ones(columns[0].shape, bool), S, n_actions)
    nothing = jnp.zeros(())  # what the frequencies give
    known = MDP(nothing, nothing, nothing, jnp.full(S, 1 / S), terminal_S, jnp.ones(()), horizon)
    return backward_induction(maximum_likelihood(known, counts))[0]
