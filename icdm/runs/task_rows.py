"""The rows of one task of a file, coded as the run or model that reads them has them coded."""

import functools
import pathlib
from typing import NamedTuple

import numpy as np

from icdm.errors import UserError
from icdm.logs.codings import Coding
from icdm.logs.features import Encoder
from icdm.logs.files import AS_IT_IS, Reading, coded_parts, fit_codings, open_source
from icdm.logs.log import Log, log_of
from icdm.logs.table import Report, Rows, checked, is_table, join, open_table, plain_codings
from icdm.runs.run import Run

BINS = 16  # intervals of a column of real numbers


def run_codings(run: Run) -> dict[str, Coding]:
    """What codes stand for in a run: as in the table that it learned from, else the family's own integers; observations
    of several features have the run's encoder."""
    learned = [run.directory / "data.parquet", pathlib.Path(run.settings.data)]
    tables = [path for path in learned if path.suffix == ".parquet" and is_table(path)]
    plain = plain_codings(run.family.observation_space.n, run.family.n_actions)
    if not tables:
        return plain
    learned = {name: open_table(tables[0]).codings[name] for name in ("observation", "action")}
    return plain | learned | ({"observation": run.encoder} if run.encoder else {})


def end_code(run: Run, codings: dict[str, Coding]) -> int:
    """The code of an observation that was not recorded: in learning from a record the first after its own, else none
    that the layout has."""
    return codings["observation"].n if run.settings.data else run.layout.n_observations


def own_codings(path: pathlib.Path, how: Reading = AS_IT_IS) -> dict[str, Coding]:
    """The codings of a table, or those that the values of another file suggest; real numbers are put into BINS
    intervals."""
    return open_table(path).codings if is_table(path) else fit_codings(open_source(path, how), BINS, "quantile")


def as_log(rows: Rows, observation: Coding, end: int) -> Log:
    """The log of some rows, as a model reads it that has observations coded so."""
    log = log_of([rows], end)
    return log.with_states(observation) if isinstance(observation, Encoder) else log


def _says_the_same(theirs: Coding, ours: Coding) -> bool:
    """Whether the codes of a table can be read as those of another coding."""
    if theirs.columns or ours.columns:
        return theirs.columns == ours.columns
    return theirs == ours or {theirs.kind, ours.kind} == {"integers"}


class TaskRows(NamedTuple):
    """The checked rows of one task of a file.

    rows: coded as in the run.
    start: the t from which the file counts steps.
    n_tasks: how many tasks the file holds.
    notes: how the file was understood.
    outside: which features lie outside what the run has learned from.
    """

    path: pathlib.Path
    rows: Rows
    start: int
    n_tasks: int
    notes: list[str]
    outside: list[str]


def read_rows(
    path: str | pathlib.Path, codings: dict[str, Coding], task: str | None, how: Reading = AS_IT_IS
) -> TaskRows:
    """The rows of the task of that name, or of the only one.

    Raises:
      UserError: a defect of the file, a value that the codings do not have, or no such task.
    """
    path, start, notes = pathlib.Path(path), 0, []
    observation = codings["observation"]
    if observation.columns:
        how = how.with_features(tuple(observation.columns))
    if is_table(path):
        table = open_table(path)
        for name in ("observation", "action"):
            if not _says_the_same(table.codings[name], codings[name]):
                raise UserError(f"{path}: column {name} is coded in another way than the run's data: give it as .csv")
        own, parts = table.codings, list(table.chunks())
    else:
        source = open_source(path, how)
        kinds = {name: codings[name].kind for name in ("observation", "action")}
        features = {name: "reals" if words is None else "words" for name, words in observation.columns.items()}
        ids = {name: source.kinds[name] for name in ("task_id", "episode_id")}
        own = fit_codings(source._replace(kinds=ids, features={}), 2, "uniform")
        own |= {name: codings[name] for name in kinds}
        read = source._replace(kinds=ids | kinds, features=features, remedies={})
        passes = functools.partial(coded_parts, read, own)
        parts, start = list(checked(path, passes, repair=None, report=Report())), source.start
        notes = source.notes
    if not parts:
        raise UserError(f"{path} holds no rows")
    rows = join(parts)
    for name, code in (("observation", rows.observation), ("action", rows.action)):
        if code.max() >= codings[name].n:
            row = int(code.argmax())
            raise UserError(
                f"{path}: row {row + 1}, column {name}: {code[row]}, the run has those from 0 to {codings[name].n - 1}"
            )
    ids = np.unique(rows.task_id)
    if task is not None:
        names = [str(name) for name in own["task_id"].decode(ids)]
        if task not in names:
            raise UserError(f"{path} has no task {task}: it has {', '.join(names[:8])}")
        rows = rows[rows.task_id == ids[names.index(task)]]
    elif len(ids) > 1:
        raise UserError(f"{path} holds {len(ids)} tasks: name one with --task")
    remarks = observation.remarks(rows.features) if isinstance(observation, Encoder) else []
    return TaskRows(path, rows, start, len(ids), notes, [f"{path}: {text}" for text in remarks])
