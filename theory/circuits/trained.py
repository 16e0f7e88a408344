"""Trained runs: their logits, attention and residual streams on unseen tasks.

Every unseen task is one row of E = K + 1 recorded episodes: a context of K, and one whose first decision is the query.
Axis letters: N tasks, E episodes, T steps, A actions, X layers, H heads, D width.
"""

import dataclasses
import functools
import importlib
import json
import pathlib
from collections.abc import Callable, Collection
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from icdm.errors import UserError
from icdm.files import locked
from icdm.models.taps import reading
from icdm.models.transformer import Transformer
from icdm.problems.family import CanSample, Family
from icdm.readers.counts_planners import plan_from_context, planners_of
from icdm.runs.phases import Phases
from icdm.runs.pretrained import of_package
from icdm.runs.run import Run
from icdm.trajectories.collect import ContextConfig, draw_tasks, record_with_context
from icdm.trajectories.layouts import Layout
from icdm.trajectories.prompt import encode, logits_at
from icdm.trajectories.trajectory import Trajectories
from theory.circuits.positions import by_step, step_of_position

ROWS = 32  # read side by side; attention takes X ROWS H L^2 numbers


@dataclasses.dataclass(frozen=True, eq=False)
class Rows:
    """Recorded episodes of N unseen tasks, and their Q-functions.

    Attributes:
      problem: the tasks.
      episodes: Trajectories (N, E, ...) with the true Q* beside every step.
    """

    family: Family
    problem: Any
    episodes: Trajectories

    @property
    def queries(self) -> np.ndarray:
        """(N,) the state of each query."""
        return np.asarray(self.episodes.observation[:, -1, 0])

    def true_q(self, episode: int = -1, step: int = 0) -> np.ndarray:
        """Q*(s, .) of the task, s the state at that step, (N, A)."""
        return np.asarray(self.episodes.q[:, episode, step], np.float64)

    @property
    def context_steps(self) -> np.ndarray:
        """(N, E, T) whether a step is of the context, and took place."""
        valid_NET = np.array(self.episodes.valid)
        valid_NET[:, -1] = False
        return valid_NET

    def with_rewards(self, reward_NET: np.ndarray) -> "Rows":
        """The same with other rewards recorded; the tasks and their Q* stay."""
        return dataclasses.replace(self, episodes=dataclasses.replace(self.episodes, reward=reward_NET))

    @functools.cache  # noqa: B019 (rows live as long as the process: there are few, and planning is slow)
    def planned(self, episode: int = -1, step: int = 0, planner: str = "", seed: int = 0) -> np.ndarray:
        """Q as planned from all that was recorded before that step, (N, T, S, A).

        By the posterior-mean planner, the perfect reader, if the family has a posterior; or by a named planner.
        """
        _, n_episodes, n_steps = self.episodes.action.shape
        order_ET = jnp.arange(n_episodes * n_steps).reshape(n_episodes, n_steps)
        before_NET = self.episodes.valid & (order_ET < episode % n_episodes * n_steps + step)[None]
        context = dataclasses.replace(self.episodes, valid=before_NET, q=None)
        planner = planner or planners_of(self.family)[:2][-1]
        return np.asarray(plan_from_context(self.family, self.problem, context, planner, jax.random.key(seed)))

    def reader_q(self, episode: int = -1, step: int = 0, planner: str = "", seed: int = 0) -> np.ndarray:
        """`planned` at that step and in its state, (N, A)."""
        state_N = np.asarray(self.episodes.observation[:, episode, step])
        return self.planned(episode, step, planner, seed)[np.arange(len(state_N)), step, state_N]


class Reading(NamedTuple):
    """The activations of a model on rows.

    logits: (N, E, T, A) of the problem's actions at every step.
    attention: (X, N, H, E, T) of the query, on the positions that hold each step.
    residual: (X + 1, N, D) the stream at the query before each layer and after the last.
    """

    logits: np.ndarray
    attention: np.ndarray
    residual: np.ndarray


class Study(NamedTuple):
    """A run, the rows on which it is studied, and their readings by its models and by the controls.

    models, readings: "fine_tuned", then the controls; shuffled: the rows' episodes with the context's actions shuffled.
    """

    run: Run
    models: dict[str, Transformer]
    rows: Rows
    shuffled: Trajectories
    readings: dict[str, Reading]

    @property
    def temperature(self) -> float:
        """tau of the run's labels."""
        return self.run.settings.labels.temperature

    @property
    def controls(self) -> tuple[str, ...]:
        """ "random_start", "pretrained_only" if the run has been pretrained, and "shuffled_context"."""
        return tuple(self.readings)[1:]


def studies(config: Any) -> dict[str, list[Study]]:
    """The trained runs of a claim's settings by variant, one for each seed; all are studied on the same tasks."""
    return {
        variant: [_study(directory, config.tasks, config.seed) for directory, _ in experiments]
        for variant, experiments in experiments_of(config).items()
    }


def train_missing(config: Any, say: Callable[[str], None] = print) -> None:
    """Trains those runs of a claim that are not in `config.runs` yet, and goes on with those that were begun.

    Raises:
      UserError: a directory that belongs to a run of other settings, or training failed.
    """

    for directory, experiment in sum(experiments_of(config).values(), []):
        with locked(directory):
            run = Run.claim(directory, experiment)
            if not (directory / "checkpoints" / "fine_tune" / str(experiment.fine_tune.steps)).is_dir():
                say(f"training {directory}")
                Phases(run).train_all()


def experiments_of(config: Any) -> dict[str, list[tuple[pathlib.Path, Any]]]:
    """(directory, experiment's config) of each run, by variant: a layout, or a number of layers."""
    make = importlib.import_module(f"theory.configs.{config.experiment}").get_config
    found = {}
    for variant in config.variants:
        found[variant] = []
        for seed in range(config.seeds):
            experiment = make(variant)
            experiment.seed = seed
            found[variant].append((pathlib.Path(config.runs) / f"{config.experiment}_{variant}_{seed}", experiment))
    return found


def examined(config: Any) -> list[Run]:
    """The runs of a claim's settings: `run`, a directory or the name of a model of the package, or those it trains."""
    if "run" in config:
        path = pathlib.Path(config.run)
        return [load_observed(of_package(path) or path)]
    return sum(runs_by_variant(config).values(), [])


def runs_by_variant(config: Any) -> dict[str, list[Run]]:
    """The runs that a claim trains, by variant, one for each seed."""
    return {
        variant: [load_observed(directory) for directory, _ in experiments]
        for variant, experiments in experiments_of(config).items()
    }


def held_out_loss(run: Run) -> tuple[list[int], list[float]]:
    """The steps at which fine-tuning looked at held-out tasks, and the loss there."""
    every = run.settings.fine_tune.validate_every
    lines = map(json.loads, (run.directory / "metrics.jsonl").read_text().splitlines())
    found = {each["step"]: each["validation_loss"] for each in lines if each["step"] and each["step"] % every == 0}
    return list(found), list(found.values())


def load_observed(directory: str | pathlib.Path) -> Run:
    """The run of a directory, for claims about states that are observed.

    Raises:
      UserError: as `load`, or a partially observed family.
    """
    run = load(directory)
    if run.family.hides_state:
        raise UserError(f"{directory}: family {run.settings.family_name} hides its state, on which Q* would depend")
    return run


def load(directory: str | pathlib.Path) -> Run:
    """The run of a directory.

    Raises:
      UserError: no run, none that was fine-tuned, a family without a simulator or with one task, or contexts that are
        not episodes.
    """
    run = Run.open(directory)
    name = run.settings.family_name
    if run.settings.context.episodes < 1 or run.layout.independent_steps:
        raise UserError(f"{directory}: its contexts are not episodes, so there are no returns to attend to")
    if not isinstance(run.family, CanSample):
        raise UserError(f"{directory}: family {name} has no simulator, so there are no unseen tasks with a known Q*")
    if run.family.n_tasks == 1:
        raise UserError(f"{directory}: family {name} has one task, so its Q* does not depend on a context")
    if "fine_tuned" not in run.trained:
        raise UserError(f"{directory} was not fine-tuned: set fine_tune.steps above 0 and start it again")
    return run


@functools.lru_cache(maxsize=2)
def _rows(family: Family, context: ContextConfig, query_behavior: str, n: int, seed: int) -> Rows:
    task_key, key = jax.random.split(jax.random.fold_in(jax.random.key(seed), 1000))
    n_distinct = family.n_tasks or n
    tasks = draw_tasks(family, task_key, n_distinct)
    task_N = jnp.arange(n) % n_distinct
    episodes = record_with_context(family, tasks, task_N, key, context, query_behavior)
    return Rows(family, tasks.problem, episodes)


def unseen_rows(run: Run, n: int, seed: int) -> Rows:
    """n tasks that the run has not seen, or rows of the family's own if it has only so many."""
    return _rows(run.family, run.settings.context, run.settings.query_behavior, n, seed)


@functools.cache
def _study(directory: pathlib.Path, n: int, seed: int) -> Study:
    run = load_observed(directory)
    rows = unseen_rows(run, n, seed)
    shuffled = shuffle_actions(rows.episodes, np.random.default_rng(seed))
    fine_tuned = run.model("fine_tuned")
    models = {
        "fine_tuned": fine_tuned,
        "random_start": run.start(),
        **({"pretrained_only": run.model("in_context")} if run.settings.pretrain.steps else {}),
        "shuffled_context": fine_tuned,
    }
    readings = {
        name: read(run.layout, model, shuffled if name == "shuffled_context" else rows.episodes)
        for name, model in models.items()
    }
    return Study(run, models, rows, shuffled, readings)


def shuffle_actions(episodes: Trajectories, rng: np.random.Generator) -> Trajectories:
    """Each row's context with its actions exchanged among its steps, so that it no longer says what they lead to."""
    action_NET = np.asarray(episodes.action)
    context_NI = action_NET[:, :-1].reshape(len(action_NET), -1)
    mixed_NET = rng.permuted(context_NI, axis=1).reshape(action_NET[:, :-1].shape)
    return dataclasses.replace(episodes, action=jnp.asarray(np.concatenate([mixed_NET, action_NET[:, -1:]], 1)))


def read(
    layout: Layout, model: Transformer, episodes: Trajectories, without: Collection[tuple[int, int]] = ()
) -> Reading:
    """The model's reading of N rows.

    Args:
      without: (layer, head) pairs that write nothing into the stream.
    """
    n, c = len(episodes.action), model.config
    kept_XH = np.ones((c.layers, c.heads), np.float32)
    for layer, head in without:
        kept_XH[layer, head] = 0
    pieces = in_pieces(lambda rows: _read(layout, model, rows, kept_XH), episodes)
    logits, attention, residual = zip(*pieces)
    return Reading(
        np.concatenate(logits)[:n], np.concatenate(attention, axis=1)[:, :n], np.concatenate(residual, axis=1)[:, :n]
    )


def in_pieces(compute: Callable[[Any], Any], tree: Any) -> list[Any]:
    """What is computed of a tree of arrays (N, ...), ROWS rows at a time; the last piece begins with the rows that are
    left, and is filled up with others: one shape, compiled once."""
    n = len(jax.tree.leaves(tree)[0])
    pieces = (np.arange(start, start + ROWS) % n for start in range(0, n, ROWS))
    return jax.device_get([compute(jax.tree.map(lambda x, rows=rows: x[rows], tree)) for rows in pieces])


def query_logits(layout: Layout, model: Transformer, episodes: Trajectories, alone: tuple[int, ...] = ()) -> np.ndarray:
    """The model's logits at the query of N rows, (N, A) float64: those of `read`, without the activations.

    Args:
      alone: layers in which the positions of the context attend to themselves alone.
    """
    pieces = in_pieces(lambda rows: _query_logits(layout, model, rows, alone), episodes)
    return np.concatenate(pieces).astype(np.float64)[: len(episodes.action)]


@functools.partial(jax.jit, static_argnums=(0, 3))
def _query_logits(layout, model, episodes, alone):
    prompt = encode(layout, episodes)

    def to_itself(weight_BHLL: jax.Array) -> jax.Array:
        is_context_L = jnp.arange(weight_BHLL.shape[2]) < prompt.context
        own_LL = jnp.eye(len(is_context_L))
        return jnp.where(is_context_L[:, None], own_LL[None, None], weight_BHLL)

    taps = {f"{i}.attention": to_itself for i in alone}
    hidden_BLD = model(prompt.tokens, context=prompt.context, taps=taps).hidden
    return logits_at(model, layout, hidden_BLD, prompt.acting)[:, -1, 0]


@functools.partial(jax.jit, static_argnums=0)
def _read(layout, model, episodes, kept_XH):
    layers = range(model.config.layers)
    prompt = encode(layout, episodes).decisions
    found, taps = reading("embed", *(f"{i}.{place}" for i in layers for place in ("attention", "out")))
    ablated = {f"{i}.heads": lambda x_BLHD, i=i: x_BLHD * kept_XH[i][None, None, :, None] for i in layers}
    hidden_BLD = model(prompt.tokens, taps=taps | ablated, context=prompt.context).hidden
    query = prompt.acting[-1, 0]
    attention_XNHL = jnp.stack([found[f"{i}.attention"][:, :, query] for i in layers])
    attention_XNHET = by_step(attention_XNHL, step_of_position(layout, *prompt.acting.shape), len(prompt.acting))
    residual_XND = jnp.stack([found[place][:, query] for place in ("embed", *(f"{i}.out" for i in layers))])
    return logits_at(model, layout, hidden_BLD, prompt.acting), attention_XNHET, residual_XND


def centred(x: np.ndarray) -> np.ndarray:
    """Less the mean over actions: all differences between actions, and nothing else."""
    return x - x.mean(-1, keepdims=True)
