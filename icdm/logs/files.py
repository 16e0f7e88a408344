"""Files of other formats (CSV, Parquet, .npz, JSON lines, Minari) as raw Arrow batches, and their rows as codes.

A raw batch has the table's columns by name, with the values of the file. How a file was understood is said in notes: a
list of sentences for the user. I counts rows, F features.
"""

import dataclasses
import difflib
import functools
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from icdm.errors import UserError, unknown
from icdm.logs import d3rlpy, delimited, dpt, listed, minari, supervised
from icdm.logs.codings import MOST_IDS, MOST_INTEGERS, UNKNOWN, Bins, Coding, Features, Integers, Words, fit_bins
from icdm.logs.columns import Seen, faulty, measured, plain, raw_values
from icdm.logs.npz import read_npz
from icdm.logs.order import in_order
from icdm.logs.table import (
    CODED,
    FEATURE,
    NOTHING,
    OPTIONAL,
    REQUIRED,
    ROW_GROUP,
    Rows,
    parquet_batches,
    parquet_columns,
)

IDS = ("task_id", "episode_id")
MISSING_REWARD = ("zero",)
REMEDIES = {  # of cells that are missing or not of their column's kind
    "observation": "icdm convert --words observation takes values as they are written, --reals observation bins them",
    "action": "icdm convert --words action takes values as they are written, --reals action bins them",
    "t": "icdm convert --sort orders rows by time stamps",
    "reward": "icdm convert --missing-reward zero counts it as 0",
}
ALIASES = {"behavior_probability": "pscore"}  # names of columns in other libraries
DEFAULTS = {"task_id": "all rows are of one task"}  # of columns that may be absent: 0
MOST_WORDS = 1000  # of a feature
SEPARATOR = ","  # between the columns of several features
NEAR = 0.75  # similarity of a column's name to an absent one's that is taken for a slip


@dataclasses.dataclass(frozen=True)
class Reading:
    """How a file is read.

    Attributes:
      split: the part of an .npz of DPT: train, test or eval.
      words: coded columns, or features, whose values are words, whatever they look like.
      reals: columns of observations or actions whose values are real numbers, to be binned although they are whole.
      sort: whether rows are brought in the order of their episodes and of t, which may then be a time stamp.
      missing_reward: "zero" if a step without a reward paid 0; else it is a defect.
      columns: "NAME=THEIRS" for a column of the table that has another name in the file; observation=ONE,OTHER,... for
        an observation of several features, which may be the entries of a vector, observation.0, observation.1, ...

    Raises:
      UserError: an unknown column or rule.
    """

    split: str = ""
    words: tuple[str, ...] = ()
    reals: tuple[str, ...] = ()
    sort: bool = False
    missing_reward: str | None = None
    columns: tuple[str, ...] = ()

    @functools.cached_property
    def named(self) -> dict[str, str]:
        """The names in the file, by the table's; those of features are their own."""
        return {name: theirs for name, theirs in self._given.items() if not (self.features and name == "observation")}

    @functools.cached_property
    def features(self) -> tuple[str, ...]:
        """The columns of an observation of several features; () for one column."""
        names = tuple(name.strip() for name in self._given.get("observation", "").split(SEPARATOR))
        return names if len(names) > 1 else ()

    @functools.cached_property
    def _given(self) -> dict[str, str]:
        return dict(text.split("=", 1) for text in self.columns)

    def with_features(self, names: Sequence[str]) -> "Reading":
        """The same of observations of these features."""
        others = [text for text in self.columns if not text.startswith("observation=")]
        return dataclasses.replace(self, columns=(*others, f"observation={SEPARATOR.join(names)}"))

    def __post_init__(self):
        given = {}
        for text in self.columns:
            name, mark, theirs = text.partition("=")
            if not mark or not theirs:
                raise UserError(f"column map {text}: give NAME=COLUMN, with the name of a column of the file")
            if name not in REQUIRED + OPTIONAL:
                raise unknown("name in the column map", name, REQUIRED + OPTIONAL)
            if given.setdefault(name, theirs) != theirs:
                raise UserError(f"the column map names {name} twice: {given[name]} and {theirs}")
        if "" in self.features or len({*self.features}) < len(self.features):
            raise UserError(f"column map observation={given['observation']}: give different names, with commas between")
        for name in self.words:
            if name not in CODED + self.features:
                raise unknown("column", name, CODED + self.features)
        for name in self.reals:
            if name not in CODED:
                raise unknown("column", name, CODED)
        for name in self.reals:
            if name in IDS or name in self.words:
                raise UserError(f"--reals {name}: only observations and actions that are no words can be real numbers")
        if self.missing_reward is not None and self.missing_reward not in MISSING_REWARD:
            raise unknown("--missing-reward", self.missing_reward, MISSING_REWARD)


AS_IT_IS = Reading()


class Source(NamedTuple):
    """A file that can be read several times.

    path: the file or directory.
    batches: starts a new pass over the raw batches, with columns as `icdm.logs.columns.plain` makes them.
    kinds: the kind of each of the four coded columns.
    features: the kind, words or reals, of each feature of the observation; then the coded observation is 0 throughout.
    start: the lowest t, from which episodes count their steps.
    missing_reward: as in `Reading`.
    notes: how the file was understood.
    remedies: by column, what helps if a cell is missing or not of its column's kind.
    """

    path: pathlib.Path
    batches: Callable[[], Iterator[pa.RecordBatch]]
    kinds: dict[str, str]
    start: int
    missing_reward: str | None
    notes: list[str]
    features: dict[str, str] = {}
    remedies: dict[str, str] = REMEDIES


def open_source(path: str | pathlib.Path, reading: Reading = AS_IT_IS) -> Source:
    """The raw rows of a file or Minari directory; what its columns hold is found in one pass over it.

    Raises:
      UserError: the file does not exist, cannot be read, lacks a column, or has one that is misspelt or of a type that
        is not supported.
    """
    path = pathlib.Path(path)
    if not path.exists():
        raise UserError(f"{path}: no such file")
    names, raw, notes = _opened(path, reading)
    names, raw = _with_entries(path, names, raw, reading.features)
    columns = _columns(path, names, reading)
    notes = notes + _notes_of_names(names, columns, reading)
    batches = functools.partial(_plain_batches, path, raw, columns)
    if reading.sort:
        batches = functools.partial(in_order, path, batches, ROW_GROUP)
        notes.append("rows are sorted by task, episode and t, and counted in that order")
    seen, start, unpaid = _survey(path, batches)
    features = {}
    for name in reading.features:
        column = seen.pop(FEATURE + name)
        features[name] = "words" if name in reading.words or column.kind == "words" else "reals"
        notes += _notes_of_kind(name, column, features[name], name in reading.words)
    kinds = {name: "words" if name in reading.words else seen[name].kind for name in CODED}
    kinds |= dict.fromkeys(reading.reals, "reals")
    for name, column in seen.items():
        if column.vector and name in (*IDS, *reading.words):
            raise UserError(f"{path}: column {name} holds vectors: give integers or words")
        notes += _notes_of_kind(name, column, kinds[name], name in reading.words)
    if start:
        notes.append(f"t is counted from {start}, here from 0")
    if unpaid and reading.missing_reward:
        notes.append(f"{unpaid} steps without a reward count as 0")
    remedies = {name: f"icdm convert --words {name} takes values as they are written" for name in features}
    return Source(path, batches, kinds, start, reading.missing_reward, notes, features, remedies | REMEDIES)


def _opened(path: pathlib.Path, reading: Reading) -> tuple[list[str], Callable[..., Iterator[pa.RecordBatch]], list]:
    """(names of the columns, a function that starts a pass over the batches, which may omit other columns than those
    that it is given, notes) of a file by its kind."""
    if path.is_dir():
        return _named(path, minari.reader(path))
    if path.suffix == ".jsonl":
        return _named(path, supervised.reader(path))
    if path.suffix == ".npz":
        arrays = read_npz(path)
        if d3rlpy.holds(arrays):
            return _named(path, functools.partial(iter, [d3rlpy.batch_of(path, arrays)]))
        return _named(path, functools.partial(iter, [dpt.batch_of(path, arrays, reading.split or "train")]))
    if path.name.lower().endswith(delimited.ENDINGS):
        known = {*REQUIRED, *OPTIONAL, *ALIASES.values(), *reading.named.values(), *reading.features}
        batches, notes = delimited.reader(path, known)
        return *_named(path, batches)[:2], notes
    if path.suffix in (".parquet", ".pq"):
        names = parquet_columns(path)
        named = reading.named | {name: name for name in reading.features}
        if lists := listed.list_columns(path, named):
            note = f"one row per episode: {', '.join(lists.values())} hold its steps, rows are counted by steps"
            return *listed.reader(path, names, lists, named), [note]
        return names, functools.partial(parquet_batches, path), []
    raise UserError(f"{path}: give a .parquet, .csv, .tsv (also .gz), .npz or .jsonl file, or a Minari directory")


def _named(path: pathlib.Path, batches: Callable) -> tuple[list[str], Callable[..., Iterator[pa.RecordBatch]], list]:
    first = next(iter(batches()), None)
    if first is None:
        raise UserError(f"{path} holds no rows")
    return first.schema.names, lambda columns: batches(), []


def _with_entries(path: pathlib.Path, names: list[str], raw: Callable, features: tuple[str, ...]) -> tuple:
    """The names and a pass in which a column NAME of vectors is one column for each entry, NAME.0, NAME.1, ..., if
    features are named so."""
    vectors = {name.rpartition(".")[0] for name in features if name not in names} & {*names}
    if not vectors:
        return names, raw

    def split(columns: list[str]) -> Iterator[pa.RecordBatch]:
        for batch in raw([*dict.fromkeys(x if x in names else x.rpartition(".")[0] for x in columns)]):
            cells = {}
            for name, column in zip(batch.schema.names, batch.columns):
                column = plain(path, name, column) if name in vectors else column
                n = column.type.list_size if pa.types.is_fixed_size_list(column.type) and name in vectors else 0
                cells |= {f"{name}.{i}": pc.list_element(column, i) for i in range(n)} or {name: column}
            yield pa.RecordBatch.from_pydict(cells)

    first = next(split(names), None)
    return (names if first is None else first.schema.names), split


def _columns(path: pathlib.Path, names: list[str], reading: Reading) -> dict[str, str]:
    """The file's names of the columns that are read, by the table's.

    Args:
      names: all columns of the file.

    Raises:
      UserError: a column is missing, twice there, or, if the user has named none, nearly named as one that is absent.
    """
    named = reading.named
    for theirs in (*named.values(), *reading.features):
        if theirs not in names:
            raise unknown(f"column of {path}", theirs, names)
    columns = {name: name for name in REQUIRED + OPTIONAL if name in names}
    columns |= {name: alias for name, alias in ALIASES.items() if alias in names and name not in names}
    columns |= named | {FEATURE + name: name for name in reading.features}
    if reading.features:
        columns.pop("observation", None)
    for name in REQUIRED:
        if name not in (*columns, *DEFAULTS) and not (name == "observation" and reading.features):
            raise UserError(
                f"{path}: column {name} is missing (it has {', '.join(names)[:200]}): name it by --columns {name}=... "
                "of icdm describe, convert and ope, in training by --config.columns; of several features give all: "
                "observation=hr,map"
            )
    for theirs in columns.values():
        if names.count(theirs) > 1:
            raise UserError(f"{path}: column {theirs} is there {names.count(theirs)} times")
    absent = [name for name in (*OPTIONAL, *DEFAULTS) if name not in columns]
    for theirs in [] if reading.columns else set(names) - set(columns.values()):
        if difflib.get_close_matches(theirs.lower(), absent, n=1, cutoff=NEAR):
            raise unknown(f"column of {path}", theirs, absent)
    return columns


def _notes_of_names(names: list[str], columns: dict[str, str], reading: Reading) -> list[str]:
    """What is said of columns that are not there, not read, or read under a name that the user has not given."""
    notes = [f"there is no column {name}: {text}" for name, text in DEFAULTS.items() if name not in columns]
    for name, theirs in columns.items():
        if theirs not in (name, reading.named.get(name)) and not name.startswith(FEATURE):
            notes.append(f"column {theirs} is read as {name}")
    spare = [name for name in names if name not in columns.values()]
    return notes + ([f"columns that are not read: {', '.join(spare)[:200]}"] if spare else [])


def _plain_batches(path: pathlib.Path, raw: Callable, columns: dict[str, str]) -> Iterator[pa.RecordBatch]:
    for batch in raw(list(columns.values())):
        place = {name: i for i, name in enumerate(batch.schema.names)}
        cells = [plain(path, ours, batch.column(place[theirs])) for ours, theirs in columns.items()]
        cells = [measured(x) if ours.startswith(FEATURE) else x for ours, x in zip(columns, cells)]
        absent = [name for name in (*DEFAULTS, "observation") if name not in columns]
        zeros = {name: pa.array(np.zeros(batch.num_rows, np.int64)) for name in absent}
        yield pa.RecordBatch.from_arrays([*cells, *zeros.values()], [*columns, *zeros])


def _survey(path: pathlib.Path, batches: Callable) -> tuple[dict[str, Seen], int, int]:
    """What the coded columns and the features hold, the lowest t, and the number of steps without a reward."""
    seen, start, unpaid, n_rows = {name: Seen() for name in CODED}, [], 0, 0
    for batch in batches():
        n_rows += batch.num_rows
        for name in batch.schema.names:
            if name in (*CODED, "oracle_action") or name.startswith(FEATURE):
                ours = "action" if name == "oracle_action" else name
                seen.setdefault(ours, Seen()).add(batch.column(name))
        t, there, faults = raw_values(batch.column("t"), "integers")
        start += [int(x.min()) for x in [t[there & ~faulty(faults)]] if x.size]
        acted, paid = (raw_values(batch.column(name), "words")[1] for name in ("action", "reward"))
        unpaid += int((acted & ~paid).sum())
    if not n_rows:
        raise UserError(f"{path} holds no rows")
    return seen, min(start, default=0), unpaid


def _notes_of_kind(name: str, column: Seen, kind: str, asked: bool) -> list[str]:
    notes = []
    if kind == "words" and not asked and column.numbers:
        notes.append(f"column {name}: {column.numbers} of {column.filled} values are numbers, all are taken as words")
    if kind == "words" and column.padded:
        notes.append(f"column {name}: blanks around {column.padded} words are left out")
    if kind != "words" and column.zeros:
        notes.append(f"column {name}: {column.zeros} numbers begin with 0, and 007 is 7: --words {name} keeps both")
    return notes


def fit_codings(source: Source, n_bins: int, binning: str) -> dict[str, Coding]:
    """Codings of all values of the source's coded columns, in one pass over it.

    Args:
      n_bins, binning: number and kind of the intervals of real columns (see `fit_bins`).

    Raises:
      UserError: a column cannot be coded.
    """
    values_of: dict[str, list] = {name: [] for name in source.kinds}
    words_of: dict[str, set] = {name: set() for name, kind in source.features.items() if kind == "words"}
    for batch in source.batches():
        for name, kind in source.kinds.items():
            columns = [batch.column(name)]
            if name == "action" and "oracle_action" in batch.schema.names:
                columns.append(batch.column("oracle_action"))
            for column in columns:
                values, there, faults = raw_values(column, kind)
                values = values[there & ~faulty(faults)]
                values_of[name].append(values if kind == "reals" else np.unique(values))
        for name, words in words_of.items():
            values, there, faults = raw_values(batch.column(FEATURE + name), "words")
            words.update(values[there & ~faulty(faults)].tolist())
    codings = {name: _fitted(source, name, values_of[name], n_bins, binning) for name in source.kinds}
    if source.features:
        for name, known in words_of.items():
            if len(known) > MOST_WORDS:
                raise UserError(f"{source.path}: feature {name} has {len(known)} different words: at most {MOST_WORDS}")
        words = [tuple(sorted(words_of[name])) or ("",) if name in words_of else None for name in source.features]
        codings["observation"] = Features(tuple(source.features), tuple(words))
    return codings


def _fitted(source: Source, name: str, parts: list[np.ndarray], n_bins: int, binning: str) -> Coding:
    if len({part.shape[1:] for part in parts if part.size}) > 1:
        raise UserError(f"{source.path}: the vectors of column {name} differ in length")
    values = np.concatenate([part for part in parts if part.size] or parts)
    if source.kinds[name] == "reals":
        if name in IDS:
            raise UserError(f"{source.path}: column {name} holds fractions: icdm convert --words {name} reads it")
        return fit_bins(values, n_bins, binning)
    if source.kinds[name] == "words":
        return Words(tuple(np.unique(values).tolist()) or ("",))
    if name in IDS:
        return Integers(MOST_IDS)
    n = int(values.max(initial=0)) + 1
    if n > MOST_INTEGERS:
        raise UserError(
            f"{source.path}: column {name} holds {n - 1}, at most {MOST_INTEGERS - 1} is coded as it is: "
            f"icdm convert --words {name} codes what occurs, --reals {name} bins it"
        )
    return Integers(n)


def _check_width(path: pathlib.Path, name: str, values: np.ndarray, coding: Coding) -> None:
    """Raises UserError if values are vectors where the coding has numbers or words, or of another length."""
    width = values.shape[1:] or (1,)
    if width != (len(coding.edges) if isinstance(coding, Bins) else 1,):
        raise UserError(f"{path}: column {name} holds vectors of {width[0]} numbers, which is not how it is coded")


def coded_parts(source: Source, codings: dict[str, Coding]) -> Iterator[tuple[Rows, dict]]:
    """The source's rows as codes, with the faults of cells by column."""
    for batch in source.batches():
        yield code(batch, source, codings)


def code(batch: pa.RecordBatch, source: Source, codings: dict[str, Coding]) -> tuple[Rows, dict]:
    """The rows of one raw batch as codes, with the faults of cells by column."""
    cells, codes = {}, {}

    def with_remedy(name: str, fault: str) -> str:
        remedy = source.remedies.get(name.removeprefix(FEATURE))
        return f"{fault} ({remedy})" if remedy else fault

    def column(name: str, kind: str, needed: bool) -> tuple[np.ndarray, np.ndarray]:
        if name not in batch.schema.names:
            return np.full(batch.num_rows, np.nan), np.zeros(batch.num_rows, bool)
        values, there, faults = raw_values(batch.column(name), kind)
        wrong = faulty(faults)
        if needed:
            faults[~there & ~wrong] = "missing"
        if name != "reward":
            faults[wrong] = [with_remedy(name, fault) for fault in faults[wrong]]
        if faulty(faults).any():
            cells[name] = faults
        return values, there & ~wrong

    def mark(name: str, mask: np.ndarray, message: str) -> None:
        if mask.any():
            faults = cells.setdefault(name, np.full(batch.num_rows, None, object))
            faults[mask & ~faulty(faults)] = message

    for name in (*CODED, "oracle_action"):
        as_column = "action" if name == "oracle_action" else name
        coding, kind = codings[as_column], source.kinds[as_column]
        values, there = column(name, kind, name not in ("action", "oracle_action"))
        if there.any():
            _check_width(source.path, name, values, coding)
        coded = np.full(batch.num_rows, NOTHING, np.int64)
        coded[there] = coding.encode(values[there])
        strange = coded == UNKNOWN
        if strange.any():
            faults = cells.setdefault(name, np.full(batch.num_rows, None, object))
            faults[strange] = [f"{value} is not among the {coding.n} values known" for value in values[strange]]
        codes[name] = np.where(strange, NOTHING, coded)
    features = np.full((batch.num_rows, len(source.features)), np.nan)
    for (name, kind), own, feature_I in zip(
        source.features.items(), codings["observation"].columns.values(), features.T
    ):
        values, there = column(FEATURE + name, kind, False)
        known = there.copy()
        if own is not None:
            values = Words(own).encode(values)
            known &= values != UNKNOWN
            mark(FEATURE + name, there & ~known, f"not among the {len(own)} words known: {', '.join(own)[:80]}")
        feature_I[known] = values[known]
    t, there = column("t", "integers", True)
    reward, paid = column("reward", "reals", False)
    probability, known = column("behavior_probability", "reals", False)
    terminal, marked = column("terminal", "truths", False)
    acted = codes["action"] != NOTHING
    mark("action", paid & ~acted, "missing, though there is a reward")
    if source.missing_reward is None:
        mark("reward", acted & ~paid, with_remedy("reward", "missing"))
    rows = Rows(
        task_id=codes["task_id"],
        episode_id=codes["episode_id"],
        t=np.where(there, t - source.start, NOTHING).astype(np.int64),
        observation=np.maximum(codes["observation"], 0),
        action=codes["action"],
        reward=np.where(acted, np.where(paid, reward, np.nan if source.missing_reward is None else 0.0), 0.0),
        oracle_action=codes["oracle_action"],
        behavior_probability=np.where(known, probability, np.nan),
        terminal=np.where(marked, terminal, 0).astype(bool),
        features=features,
    )
    return rows, {name.removeprefix(FEATURE): faults for name, faults in cells.items()}
