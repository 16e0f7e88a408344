"""The sizes of a run's problem, and what it would take, by arithmetic, before anything is allocated."""

import dataclasses
from pathlib import Path
from typing import Any

from icdm.errors import UserError
from icdm.learning.train import TrainConfig
from icdm.memory import check_fits
from icdm.models.flops import matrix_weights
from icdm.models.transformer import ModelConfig
from icdm.problems.family import CanSample, Family
from icdm.runs.settings import Settings, as_json, columns_of, completed

HALF, SINGLE, DOUBLE = 2, 4, 8  # bytes of a number
TRAINED = 4  # numbers for each weight that is trained: itself, its gradient and two moments
STEP = 13  # bytes of a recorded step: observation, action, reward, and whether it took place


def with_sizes_of_data(config: Any) -> Any:
    """The config; one of the family `recorded` gets the sizes that it lacks from its data file.

    Raises:
      UserError: there is no file, it cannot be read, or it holds no steps.
    """
    c = as_json(config)
    full = completed(c)
    sizes = ("states", "actions", "reward_low", "reward_high")
    lacks = not full["horizon"] or any(name not in full["problem"] for name in sizes)
    if full["family"] != "recorded" or not lacks:
        return config
    if not full["data"]:
        raise UserError("family recorded takes its sizes from a log: give --config.data=FILE")
    from icdm.logs.describe import describe  # needs the packages of the extra `data`
    from icdm.logs.features import widths_of

    found = describe(Path(full["data"]), columns=columns_of(full["columns"]))
    if not found["length"] or not found["reward"]:
        raise UserError(f"{full['data']} holds no steps with rewards")
    low, high = found["reward"]["min"], found["reward"]["max"]
    known = (found["observations"], found["n_actions"], low, high if high > low else low + 1.0)
    problem = dict(zip(sizes, known))
    if found["features"]:
        words = (each.get("words") for each in found["features"].values())
        widths = widths_of(words, full["features"]["edges"])
        problem |= {"states": full["features"]["states"], "widths": list(widths)}
    return c | {"horizon": full["horizon"] or int(found["length"]["max"]), "problem": problem | full["problem"]}


def check_sizes(s: Settings) -> None:
    """Raises UserError if the run would take more memory than there is."""
    trained = [training for training in (s.pretrain, s.fine_tune) if training.steps]
    each = SINGLE * TRAINED if any(not training.lora_rank for training in trained) else HALF
    weights = each * parameters(s.model, s.layout.size)
    check_fits("model (width, layers, hidden)", weights, "lower them")
    families = s.pretrain_mixture if s.pretrain.steps else ()
    rows = s.pretrain.batch // max(len(families), 1)
    for family in families:
        check_fits(
            "pretrain.batch",
            _step_size(s, s.pretrain, rows, family, s.context.episodes),
            "lower it, or pretrain.mixture's sizes",
        )
    parts = [(part.rows, part.family, part.context.episodes) for part in s.mixture]
    parts = parts or [(s.fine_tune.batch, s.family, s.context.episodes)]
    size = sum(_step_size(s, s.fine_tune, *part) for part in parts)
    check_fits("fine_tune.batch", size, "lower it, or the problem")
    if isinstance(s.family, CanSample):
        check_fits("fine_tune.pool", s.pool * problem_size(s.family), "lower it, or the problem")
        _check_evaluation(s)


def parameters(m: ModelConfig, vocabulary: int) -> int:
    """The number of weights of a model, but for vectors."""
    held = dataclasses.replace(m, layers=1) if m.tied else m
    return matrix_weights(held) + vocabulary * m.width * (1 if m.tied_embedding else 2)


def problem_size(family: Family) -> int:
    """Bytes of the transitions of one problem of the family, in double precision."""
    return DOUBLE * family.n_actions * family.n_states**2


def _step_size(s: Settings, training: TrainConfig, rows: int, family: Family, episodes: int) -> int:
    """Bytes of the tasks of a step's rows where each has one of its own, and of what every layer computes for them."""
    if not training.steps:
        return 0
    fresh = not (s.data or family.hides_state or family.n_tasks or s.pool)
    positions = min(s.positions(family, episodes), s.model.max_length)
    layers = 1 if s.model.remat else s.model.layers
    return rows * (fresh * problem_size(family) + SINGLE * positions * layers * s.model.width)


def _check_evaluation(s: Settings) -> None:
    n, episodes = s.family.n_tasks or s.evaluation.tasks, s.evaluation.episodes
    read = max(s.context.episodes, s.evaluation.own_episodes - 1, 1)
    check_fits("evaluation.tasks", n * problem_size(s.family), "lower it, or the problem")
    contexts = n * episodes * read * s.family.horizon * STEP
    check_fits("evaluation.tasks times evaluation.episodes", contexts, "lower them")
    m, rows = s.model, min(s.evaluation.rows, n * episodes)
    positions = s.positions(s.family, read)
    cache = 2 * rows * positions * m.layers * m.kv_heads * m.head_width * (HALF if m.dtype == "bfloat16" else SINGLE)
    context = s.positions(s.family, read - 1)
    attention = SINGLE * rows * m.heads * context**2  # of one layer, while it reads the context
    check_fits("evaluation.rows", cache + attention, "lower it")
