"""A policy as a file of action probabilities: in every observation, or at every step of a log.

Letters as in docs/axes.md: I rows of the log; W groups of rows of the file whose probabilities belong together.
"""

import pathlib

import numpy as np
import pyarrow as pa

from icdm.errors import UserError
from icdm.logs import delimited
from icdm.logs.codings import UNKNOWN, Coding
from icdm.logs.columns import faulty, plain, raw_values
from icdm.logs.table import parquet_batches
from icdm.runs.task_rows import TaskRows

OBSERVED = ("observation", "action", "probability")
STEPWISE = ("episode_id", "t", "action", "probability")
KINDS = {"t": "integers", "probability": "reals"}  # of columns that have no coding
NEAR_1 = 1e-3  # how far rounded probabilities may be from adding up to 1


def open_policy(path: str | pathlib.Path, features: bool) -> tuple[pa.Table, tuple[str, ...]]:
    """The rows of a .csv or .parquet file, and which columns it has: OBSERVED or STEPWISE.

    Args:
      features: whether the log has observations of several features, which no column names.

    Raises:
      UserError: no such file, one without rows, or a column is missing.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise UserError(f"--policy {path}: neither a run, uniform, behavior, nor a file")
    known = {*OBSERVED, *STEPWISE}
    batches = list(parquet_batches(path) if path.suffix == ".parquet" else delimited.reader(path, known)[0]())
    names = batches[0].schema.names if batches else ()
    form = STEPWISE if features or ("episode_id" in names and "observation" not in names) else OBSERVED
    how = f"give {', '.join(form)}, one row for each {'step and action' if form == STEPWISE else 'pair'}"
    if not batches:
        raise UserError(f"{path} holds no rows: {how}")
    for name in form:
        if name not in names:
            why = ", since the log has observations of several features" if features else ""
            raise UserError(f"{path}: column {name} is missing: {how}{why}")
    return pa.Table.from_batches(batches), form


def in_observations(path: str | pathlib.Path, table: pa.Table, codings: dict[str, Coding]) -> np.ndarray:
    """Action probabilities in each observation, (S, A). Pairs that are not listed have probability 0; observations that
    the log does not have are left out.

    Raises:
      UserError: a cell without a value, an action that the log does not have, or probabilities that do not add up to 1.
    """
    cells = {name: _cells(path, table, name, codings) for name in OBSERVED}
    return _together(path, cells, cells["observation"], codings["observation"].n, codings["action"].n, "observation")


def at_steps(path: str | pathlib.Path, table: pa.Table, codings: dict[str, Coding], log: TaskRows) -> np.ndarray:
    """Action probabilities in each row of a log, (I, A); t counts as it does there. Actions that are not listed have
    probability 0; steps that the log does not have are left out.

    Raises:
      UserError: as `in_observations`, or a step of the log is not listed.
    """
    cells, rows = {name: _cells(path, table, name, codings) for name in STEPWISE}, log.rows
    starts, t = rows.starts, cells["t"] - log.start
    lengths = np.diff(np.append(starts, rows.n))
    ids, order = rows.episode_id[starts], np.argsort(rows.episode_id[starts])
    place = np.searchsorted(ids, cells["episode_id"], sorter=order)
    episode = order[np.minimum(place, len(ids) - 1)]
    there = (ids[episode] == cells["episode_id"]) & (t >= 0) & (t < lengths[episode])
    row = np.where(there, starts[episode] + t, UNKNOWN)
    chance_IA = _together(path, cells, row, rows.n, codings["action"].n, "step")
    bare = rows.acted & (chance_IA.sum(1) == 0)
    if bare.any():
        first = int(bare.argmax())
        name = codings["episode_id"].decode(rows.episode_id[first : first + 1])[0]
        raise UserError(f"{path} has no probabilities for t {rows.t[first] + log.start} of episode {name} of the log")
    return np.where(rows.acted[:, None], chance_IA, 1 / codings["action"].n)


def _cells(path: str | pathlib.Path, table: pa.Table, name: str, codings: dict[str, Coding]) -> np.ndarray:
    """The codes or numbers of one column."""
    coding = codings.get(name)
    column = plain(pathlib.Path(path), name, table.column(name).combine_chunks())
    values, there, faults = raw_values(column, coding.kind if coding else KINDS[name])
    if values.ndim > 1:
        raise UserError(f"{path}: column {name} holds vectors: give the values as the log names them")
    bad = ~there | faulty(faults)
    if bad.any():
        row = int(bad.argmax())
        raise UserError(f"{path}: row {row + 1}, column {name}: {faults[row] or 'missing'}")
    return coding.encode(values) if coding else values


def _together(
    path: str | pathlib.Path, cells: dict[str, np.ndarray], group: np.ndarray, n: int, n_actions: int, what: str
) -> np.ndarray:
    """The probabilities of each of n groups, (W, A), that add up to 1, or to 0 where none is listed.

    Args:
      group: of each row of the file; UNKNOWN for rows of no use.
    """
    action, probability = cells["action"], cells["probability"]
    new = (action == UNKNOWN) & (probability > 0)
    if new.any():
        raise UserError(f"{path}: row {int(new.argmax()) + 1}, column action: the log does not have this action")
    listed = (group != UNKNOWN) & (action != UNKNOWN)
    chance_WA = np.zeros((n, n_actions))
    np.add.at(chance_WA, (group[listed], action[listed]), probability[listed])
    total_W = chance_WA.sum(1)
    wrong = (probability < 0) | listed & (np.abs(total_W[group] - 1) > NEAR_1)
    if wrong.any():
        row = int(wrong.argmax())
        raise UserError(
            f"{path}: row {row + 1}, column probability: those of one {what} are to be from 0 and add up to 1"
        )
    return chance_WA / np.where(total_W > 0, total_W, 1.0)[:, None]
