"""Data sets of experiments: a training log, a held-out log, and unseen tasks if the family has a simulator."""

import dataclasses
import pathlib
from typing import Any

import jax
import numpy as np

from icdm.errors import UserError
from icdm.files import write_json
from icdm.logs import d3rlpy, dpt
from icdm.logs.codings import Features
from icdm.logs.convert import to_table
from icdm.logs.features import EDGES, FILE, Encoder, fit_encoder, read_encoder
from icdm.logs.log import Log, hold_out, load
from icdm.logs.npz import read_npz
from icdm.logs.table import Table, is_table, open_table
from icdm.problems.family import CanSample, Family
from icdm.trajectories.collect import draw_problems


@dataclasses.dataclass(frozen=True)
class DataSet:
    """An opened data file.

    Attributes:
      train, test: the training log and the held-out log.
      problem: N unseen problems in float64, or None without a simulator.
      contexts: (N, E, K) episodes of `test`, the contexts of E evaluation episodes in each problem; or None.
      names_best_actions: whether the labels are the actions of the family's `best_action_probabilities`.
    """

    train: Log
    test: Log
    problem: Any | None
    contexts: np.ndarray | None
    names_best_actions: bool


def open_dataset(
    path: pathlib.Path,
    family: Family,
    workdir: pathlib.Path,
    *,
    seed: int,
    tasks: int,
    episodes: int,
    columns: tuple[str, ...] = (),
    edges: int = EDGES,
) -> DataSet:
    """Reads a data file; a file of another format is converted to a table in the work directory.

    If observations have several features, their quantiles and as many states as the family has are those of the
    training log, and kept in the work directory.

    Args:
      seed: random seed of the unseen tasks.
      tasks: number of unseen tasks if the family has a simulator.
      episodes: number of evaluation episodes in each task.
      columns: as in `Reading`.
      edges: as in `fit_encoder`.

    Raises:
      UserError: the file does not exist, has a defect, or does not fit the family.
    """
    if not path.exists():
        raise UserError(f"--config.data={path}: no such file")
    if path.suffix == ".npz" and not d3rlpy.holds(read_npz(path)):
        train, test, problem, contexts = dpt.split(path, family, workdir, seed, episodes)
        return DataSet(train, test, problem, contexts, names_best_actions=True)
    table = open_table(path) if is_table(path) else _as_table(path, workdir, columns)
    train, test = hold_out(load(table))
    coding = table.codings["observation"]
    if coding.columns:
        encoder = _encoder(coding, train, workdir, edges, family.n_states, seed)
        train, test = train.with_states(encoder), test.with_states(encoder)
    problem = None
    if isinstance(family, CanSample):
        problem = draw_problems(family, jax.random.key(seed), family.n_tasks or tasks)
    return DataSet(train, test, problem, None, names_best_actions=False)


def _as_table(path: pathlib.Path, workdir: pathlib.Path, columns: tuple[str, ...]) -> Table:
    table, report = to_table(path, workdir / "data.parquet", columns=columns)
    for note in report.notes:
        print(f"{path}: {note}")
    return table


def _encoder(coding: Features, train: Log, workdir: pathlib.Path, edges: int, states: int, seed: int) -> Encoder:
    """The encoder of the training log's features; a run that goes on has kept it in its directory."""
    kept = read_encoder(workdir) if (workdir / "config.json").exists() else None
    encoder = kept or fit_encoder(coding, train.features[train.rows()], edges, states, seed)
    write_json(workdir / FILE, encoder.as_json())
    return encoder
