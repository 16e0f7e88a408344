"""Tables of recorded steps: one row per step, checked, coded, and streamed in row groups.

    task_id, episode_id, t, observation, action, reward[, oracle_action, behavior_probability, terminal]

The rows of an episode are consecutive, t = 0, 1, ... . The last row of an episode may have no action and no reward;
then it holds the observation after the last step. An oracle_action in such a row labels a query: an observation for
which the best action is asked. A table is a Parquet file of integer codes with its codings in the metadata. Where
observations have several features (coding `Features`), these stand in columns of their own, "observation.NAME". I
counts rows, F features.
"""

import dataclasses
import json
import pathlib
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from icdm.errors import UserError, unknown
from icdm.files import whole
from icdm.logs.codings import MOST_IDS, UNKNOWN, Coding, Integers, coding_from_json
from icdm.logs.columns import faulty, is_text

NOTHING = -1  # code of an absent action or oracle action
FEATURE = "observation."  # begins the names of the columns of features
REQUIRED = ("task_id", "episode_id", "t", "observation", "action", "reward")
OPTIONAL = ("oracle_action", "behavior_probability", "terminal")
CODED = ("task_id", "episode_id", "observation", "action")
REPAIRS = ("drop", "truncate")
ROW_GROUP = 2**17
METADATA = b"icdm"
MOST_IN_GROUP = 2**31  # bytes of a row group, not compressed
MOST_ROWS, MOST_ROWS_PER_BYTE = 2**26, 1000  # of a file; more rows than that take no more than the bytes allow
LARGEST_REWARD = float(np.finfo(np.float32).max)  # models read rewards in 32 bits

SCHEMA = pa.schema(
    [
        ("task_id", pa.int64()),
        ("episode_id", pa.int64()),
        ("t", pa.int32()),
        ("observation", pa.int32()),
        ("action", pa.int32()),
        ("reward", pa.float64()),
        ("oracle_action", pa.int32()),
        ("behavior_probability", pa.float64()),
        ("terminal", pa.bool_()),
    ]
)


@dataclasses.dataclass(frozen=True)
class Rows:
    """I coded rows.

    Attributes:
      task_id, episode_id, t, observation: (I,) int64.
      action, oracle_action: (I,) int64, NOTHING if there is none.
      reward: (I,) float64, 0 in rows without an action.
      behavior_probability: (I,) float64, probability of the recorded action; nan if unknown.
      terminal: (I,) bool, whether the episode ended after this step.
      features: (I, F) float64, nan where one is missing; F = 0 by default.
    """

    task_id: np.ndarray
    episode_id: np.ndarray
    t: np.ndarray
    observation: np.ndarray
    action: np.ndarray
    reward: np.ndarray
    oracle_action: np.ndarray
    behavior_probability: np.ndarray
    terminal: np.ndarray
    features: np.ndarray = None

    def __post_init__(self):
        if self.features is None:
            object.__setattr__(self, "features", np.zeros((self.n, 0)))

    @property
    def n(self) -> int:
        return len(self.t)

    @property
    def starts(self) -> np.ndarray:
        """Index of the first row of every episode."""
        new = (np.diff(self.task_id) != 0) | (np.diff(self.episode_id) != 0)
        return np.flatnonzero(np.concatenate([[self.n > 0], new])) if self.n else np.zeros(0, np.int64)

    @property
    def acted(self) -> np.ndarray:
        """Whether the row has an action, (I,) bool."""
        return self.action != NOTHING

    def __getitem__(self, index: slice | np.ndarray) -> "Rows":
        return Rows(**{f.name: getattr(self, f.name)[index] for f in dataclasses.fields(self)})


def join(parts: list[Rows]) -> Rows:
    """The rows of the parts, one part after another."""
    return Rows(**{f.name: np.concatenate([getattr(p, f.name) for p in parts]) for f in dataclasses.fields(Rows)})


@dataclasses.dataclass(frozen=True)
class Table:
    """A table on disk.

    Attributes:
      path: the Parquet file.
      codings: the codings of task_id, episode_id, observation and action.
      n_rows: number of rows.
      longest: number of steps of the longest episode.
      reward_low, reward_high: the range of its rewards.
    """

    path: pathlib.Path
    codings: dict[str, Coding]
    n_rows: int
    longest: int
    reward_low: float
    reward_high: float

    @property
    def n_actions(self) -> int:
        return self.codings["action"].n

    @property
    def n_observations(self) -> int:
        return self.codings["observation"].n

    def chunks(self) -> Iterator[Rows]:
        """The checked rows in parts of whole episodes; about one row group is in memory at a time.

        Raises:
          UserError: a row has a defect (the message names file, row and column).
        """
        return checked(self.path, self.coded, repair=None, report=Report())

    def coded(self) -> Iterator[tuple[Rows, dict]]:
        """The unchecked rows of the file, for `checked` and `find_defects`."""
        for batch in parquet_batches(self.path):
            yield _within(_rows(batch), self.codings)


def open_table(path: str | pathlib.Path) -> Table:
    """The table of a Parquet file that `write_table` made.

    Raises:
      UserError: the file does not exist, is no complete Parquet file, has no codings or damaged ones, or no rows.
    """
    path = pathlib.Path(path)
    try:
        file = pq.read_metadata(path)
    except Exception as error:  # beside its own exceptions, Arrow raises those of Python on damaged metadata
        raise unreadable(path, error) from None
    if METADATA not in (file.metadata or {}):
        raise UserError(f"{path} has no codings: make a table of it with icdm convert")
    try:
        header = json.loads(file.metadata[METADATA])
        codings = {name: coding_from_json(header["codings"][name]) for name in CODED}
        sizes = int(header["longest"]), float(header["reward_low"]), float(header["reward_high"])
        same = file.schema.to_arrow_schema().equals(schema_of(codings["observation"]))
        same &= all(codings[name].n <= 2**31 for name in ("observation", "action"))  # as SCHEMA has them
    except Exception:  # JSON of any form, and what Arrow raises on a damaged schema
        same = False
    if not same:
        raise UserError(f"{path}: its codings or columns are damaged: make the table anew with icdm convert")
    if not file.num_rows:
        raise UserError(f"{path} holds no rows")
    return Table(path, codings, file.num_rows, *sizes)


def is_table(path: str | pathlib.Path) -> bool:
    """Whether the file is a Parquet file with codings."""
    try:
        return METADATA in (pq.read_metadata(path).metadata or {})
    except Exception:  # as in `open_table`
        return False


def write_table(path: str | pathlib.Path, chunks: Iterable[Rows], codings: dict[str, Coding]) -> Table:
    """Writes chunks of whole episodes in row groups and returns the table; an interrupted write leaves no file.

    Raises:
      UserError: the chunks hold no step, or the path cannot be written.
    """
    path = pathlib.Path(path)
    longest, low, high = 0, np.inf, -np.inf
    try:
        with whole(path) as fresh, pq.ParquetWriter(fresh, schema_of(codings["observation"])) as writer:
            for rows in chunks:
                acted = rows.acted
                longest = max(longest, int(rows.t[acted].max(initial=-1)) + 1)
                low = min(low, rows.reward[acted].min(initial=low))
                high = max(high, rows.reward[acted].max(initial=high))
                writer.write_batch(as_batch(rows, codings["observation"]), row_group_size=ROW_GROUP)
            if longest == 0:
                raise UserError(f"{path}: there are no steps to write")
            header = {"longest": longest, "reward_low": float(low), "reward_high": float(high)}
            header["codings"] = {name: coding.as_json() for name, coding in codings.items()}
            writer.add_key_value_metadata({METADATA: json.dumps(header).encode()})
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from None
    return open_table(path)


def schema_of(observation: Coding | None) -> pa.Schema:
    """SCHEMA, with a column for each feature of the observations."""
    names = observation.columns if observation else ()
    return pa.schema([*SCHEMA, *(pa.field(FEATURE + name, pa.float64()) for name in names)])


def as_batch(rows: Rows, observation: Coding | None = None) -> pa.RecordBatch:
    """The rows as an Arrow batch of `schema_of`; absent actions, rewards, probabilities and features are null."""
    columns = []
    for field in SCHEMA:
        values, mask = getattr(rows, field.name), None
        if field.name in ("action", "oracle_action"):
            mask = values == NOTHING
        elif field.name == "reward":
            mask = ~rows.acted
        elif field.name == "behavior_probability":
            mask = np.isnan(values)
        columns.append(pa.array(values, type=field.type, mask=mask))
    columns += [pa.array(x, mask=np.isnan(x)) for x in rows.features.T]
    return pa.record_batch(columns, schema=schema_of(observation))


def parquet_columns(path: str | pathlib.Path) -> list[str]:
    """The names of the columns of a Parquet file.

    Raises:
      UserError: the file cannot be read.
    """
    try:
        return pq.read_schema(path).names
    except Exception as error:  # as in `open_table`
        raise unreadable(path, error) from None


def parquet_batches(path: str | pathlib.Path, columns: list[str] | None = None) -> Iterator[pa.RecordBatch]:
    """The batches of a Parquet file, its text as dictionaries.

    Args:
      columns: which columns are read; None for all.

    Raises:
      UserError: the file cannot be read, lacks rows that it claims, or claims more than a file of its size can hold.
    """
    try:
        with pq.ParquetFile(path, read_dictionary=_text_columns(path)) as file:
            _check_sizes(pathlib.Path(path), file.metadata)
            held = 0
            for batch in file.iter_batches(batch_size=ROW_GROUP, columns=columns):
                held += batch.num_rows
                yield batch
            if held != file.metadata.num_rows:
                raise UserError(f"{path} is damaged: it holds {held:,} of {file.metadata.num_rows:,} rows")
    except UserError:
        raise
    except Exception as error:  # as in `open_table`
        raise unreadable(path, error) from None


def _text_columns(path: str | pathlib.Path) -> list[str]:
    return [field.name for field in pq.read_schema(path) if is_text(field.type)]


def _check_sizes(path: pathlib.Path, file: pq.FileMetaData) -> None:
    most = max(MOST_ROWS, MOST_ROWS_PER_BYTE * path.stat().st_size)
    if file.num_rows > most:
        raise UserError(f"{path} of {path.stat().st_size:,} bytes claims {file.num_rows:,} rows: at most {most:,}")
    for group in range(file.num_row_groups):
        size = file.row_group(group).total_byte_size
        if size > MOST_IN_GROUP:
            raise UserError(
                f"{path}: row group {group} takes {size:,} bytes: at most {MOST_IN_GROUP:,}, write smaller row groups"
            )


def unreadable(path: str | pathlib.Path, error: Exception) -> UserError:
    """The error of a file that does not exist or cannot be read."""
    if not pathlib.Path(path).exists():
        return UserError(f"{path}: no such file")
    said = (str(error).splitlines() or [type(error).__name__])[0][:120]
    return UserError(f"{path} cannot be read ({said}): it may be incomplete; write it again")


@dataclasses.dataclass
class Report:
    """What was done to the rows of a file.

    Attributes:
      episodes: those that a repair changed, by (task_id, episode_id).
      rows: number of rows that it omitted.
      first: the first defect.
      notes: how the file was understood.
    """

    episodes: set[tuple[int, int]] = dataclasses.field(default_factory=set)
    rows: int = 0
    first: str = ""
    notes: list[str] = dataclasses.field(default_factory=list)

    def __str__(self) -> str:
        if not self.episodes:
            return "nothing dropped"
        return f"{len(self.episodes)} episodes repaired, {self.rows} rows dropped (first defect: {self.first})"


Passes = Callable[[], Iterable[tuple[Rows, dict]]]


def checked(path: str | pathlib.Path, passes: Passes, *, repair: str | None, report: Report) -> Iterator[Rows]:
    """Whole episodes of the parts, without defects.

    Args:
      passes: starts a pass over the parts: rows, and {column: (I,) faults} of their cells, a message or None for each.
      repair: None refuses the first defect; "drop" omits every episode with a defect; "truncate" omits the rows of an
        episode from its first defect on.
      report: counts the omitted rows.

    Raises:
      UserError: a row has a defect and `repair` is None (`file: row, column: fault`, rows counted from 1 without the
        header).
    """
    if repair is not None and repair not in REPAIRS:
        raise unknown("repair", repair, REPAIRS)
    if repair == "drop":  # the first part of an episode may be whole, and a later one not
        for rows, defects in find_defects(passes()):
            report.episodes.update(_episodes_at(rows, [index for _, index, _ in defects]))
    row = 1
    for rows, defects in find_defects(passes()):
        n = rows.n
        if defects:
            column, index, fault = min(defects, key=lambda defect: defect[1])
            where = f"{path}: row {row + index}, column {column}: {fault}"
            if repair is None:
                raise UserError(f"{where}; correct it, or icdm convert --repair drop or --repair truncate")
            report.first = report.first or where
        if repair == "drop":
            rows = _without(rows, report)
        elif defects:
            rows = _cut(rows, [index for _, index, _ in defects], report)
        row += n
        if rows.n:
            yield rows


def find_defects(parts: Iterable[tuple[Rows, dict]]) -> Iterator[tuple[Rows, list[tuple[str, int, str]]]]:
    """Whole episodes of the parts, with their defects (column, row counted from 0, fault)."""
    seen: set[tuple[int, int]] = set()
    for rows, cells in _whole_episodes(parts):
        in_cells = [(name, i, faults[i]) for name, faults in cells.items() for i in np.flatnonzero(faulty(faults))]
        known = {(name, i) for name, i, _ in in_cells}
        in_rows = [
            (name, i, describe(i))
            for name, mask, describe in _contradictions(rows, seen)
            for i in np.flatnonzero(mask)
            if (name, i) not in known
        ]
        yield rows, in_cells + in_rows


def _episodes_at(rows: Rows, index: list[int]) -> set[tuple[int, int]]:
    return set(zip(rows.task_id[index].tolist(), rows.episode_id[index].tolist()))


def _without(rows: Rows, report: Report) -> Rows:
    """The rows of the episodes that are not in the report."""
    starts = rows.starts
    lengths = np.diff(np.append(starts, rows.n))
    kept = np.array([key not in report.episodes for key in zip(rows.task_id[starts], rows.episode_id[starts])], bool)
    report.rows += int(lengths[~kept].sum())
    return rows[np.repeat(kept, lengths)]


def _cut(rows: Rows, bad_rows: list[int], report: Report) -> Rows:
    """The rows of each episode before the first bad one."""
    bad = np.zeros(rows.n, bool)
    bad[bad_rows] = True
    starts = rows.starts
    so_far = np.cumsum(bad)
    before = np.repeat((so_far - bad)[starts], np.diff(np.append(starts, rows.n)))
    report.episodes.update(_episodes_at(rows, bad_rows))
    report.rows += int((so_far > before).sum())
    return rows[so_far == before]


def _contradictions(rows: Rows, seen: set) -> list[tuple[str, np.ndarray, Callable[[int], str]]]:
    """(column, mask of rows, message of a row) of each rule of a table that some rows may break.

    Args:
      seen: (task_id, episode_id) of the episodes of earlier parts; those of these rows are added.
    """
    starts = rows.starts
    lengths = np.diff(np.append(starts, rows.n))
    expected = np.arange(rows.n) - np.repeat(starts, lengths)
    last = np.zeros(rows.n, bool)
    last[starts + lengths - 1] = True
    over = np.zeros(rows.n, bool)
    over[1:] = rows.terminal[:-1]
    over[starts] = False
    over &= rows.acted
    again = np.zeros(rows.n, bool)
    keys = list(zip(rows.task_id[starts].tolist(), rows.episode_id[starts].tolist()))
    for key, start, length in zip(keys, starts, lengths):
        if key in seen:
            again[start : start + length] = True
        seen.add(key)
    probability = rows.behavior_probability
    improbable = rows.acted & ~np.isnan(probability) & ~((probability > 0) & (probability <= 1))
    return [
        (
            "episode_id",
            again,
            lambda i: (
                f"episode {rows.episode_id[i]} of task {rows.task_id[i]} continues after other episodes "
                "(icdm convert --sort brings its rows together)"
            ),
        ),
        (
            "t",
            rows.t != expected,
            lambda i: f"step {rows.t[i]} instead of {expected[i]}, counted from 0: a step is missing or repeated",
        ),
        ("action", ~rows.acted & ~last, lambda i: "missing; only the last row of an episode may have no action"),
        (
            "reward",
            rows.acted & ~(np.abs(rows.reward) <= LARGEST_REWARD),
            lambda i: "missing, or not a finite number of 32 bits",
        ),
        ("terminal", over, lambda i: "a step after the terminal one"),
        ("behavior_probability", improbable, lambda i: f"{probability[i]:g} is not in (0, 1]"),
    ]


def _whole_episodes(parts: Iterable[tuple[Rows, dict]]) -> Iterator[tuple[Rows, dict]]:
    """The same rows in parts of whole episodes."""
    held: list[tuple[Rows, dict]] = []
    for rows, cells in parts:
        if not rows.n:
            continue
        cut = int(rows.starts[-1])
        same = held and held[-1][0].task_id[-1] == rows.task_id[0] and held[-1][0].episode_id[-1] == rows.episode_id[0]
        if cut == 0 and same:  # the part continues one long episode
            held.append((rows, cells))
            continue
        if cut == 0:
            if held:
                yield _joined(held)
            held = [(rows, cells)]
            continue
        yield _joined([*held, (rows[:cut], {name: faults[:cut] for name, faults in cells.items()})])
        held = [(rows[cut:], {name: faults[cut:] for name, faults in cells.items()})]
    if held:
        yield _joined(held)


def _joined(held: list[tuple[Rows, dict]]) -> tuple[Rows, dict]:
    cells = {}
    for name in {name for _, faults in held for name in faults}:
        cells[name] = np.concatenate([faults.get(name, np.full(rows.n, None, object)) for rows, faults in held])
    return join([rows for rows, _ in held]), cells


def _rows(batch: pa.RecordBatch) -> Rows:
    """The rows of a batch of SCHEMA."""

    def integers(name: str, missing: int = UNKNOWN) -> np.ndarray:
        """Codes; a negative number stands for no code, and is not taken for an absent one."""
        column = batch.column(name)
        values = np.maximum(column.fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64), UNKNOWN)
        values = np.where(values < 0, UNKNOWN, values)
        return np.where(column.is_valid().to_numpy(zero_copy_only=False), values, missing)

    def reals(name: str) -> np.ndarray:
        return batch.column(name).fill_null(np.nan).to_numpy(zero_copy_only=False)

    features = [reals(name) for name in batch.schema.names if name.startswith(FEATURE)]
    action = integers("action", NOTHING)
    reward = reals("reward")
    return Rows(
        task_id=integers("task_id"),
        episode_id=integers("episode_id"),
        t=integers("t"),
        observation=integers("observation"),
        action=action,
        reward=np.where(action == NOTHING, 0.0, reward),
        oracle_action=integers("oracle_action", NOTHING),
        behavior_probability=reals("behavior_probability"),
        terminal=batch.column("terminal").fill_null(False).to_numpy(zero_copy_only=False),
        features=np.stack(features, 1) if features else None,
    )


def _within(rows: Rows, codings: dict[str, Coding]) -> tuple[Rows, dict]:
    """The rows with codes that stand for something, and the faults of the others by column."""
    cells, codes = {}, {}
    for name in (*CODED, "oracle_action"):
        coding, code = codings["action" if name == "oracle_action" else name], getattr(rows, name)
        strange = (code == UNKNOWN) | (code >= coding.n)
        if strange.any():
            cells[name] = np.where(strange, f"missing, or no code from 0 to {coding.n - 1}", None)
            codes[name] = np.where(strange, NOTHING if name in ("action", "oracle_action") else 0, code)
    features = rows.features.copy()
    for (name, words), column in zip(codings["observation"].columns.items(), features.T):
        strange = np.isinf(column) if words is None else (column % 1 != 0) | (column < 0) | (column >= len(words))
        strange &= ~np.isnan(column)
        if strange.any():
            cells[name] = np.where(strange, "not finite, or no code of a word", None)
            column[strange] = np.nan
    return dataclasses.replace(rows, features=features, **codes), cells


def plain_codings(n_observations: int, n_actions: int) -> dict[str, Coding]:
    """Codings of a table whose columns are integers."""
    ids = Integers(MOST_IDS)
    return {
        "task_id": ids,
        "episode_id": ids,
        "observation": Integers(n_observations),
        "action": Integers(n_actions),
    }
