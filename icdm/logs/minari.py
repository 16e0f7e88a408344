"""Conversion of Minari data sets (HDF5 and Arrow) to tables and back, without the package Minari.

An episode of T steps has U = T + 1 observations and T actions, rewards, terminations and truncations. Minari has no
fields for tasks, oracle's actions and behaviour probabilities; they are in the episode's metadata (`task_id`,
`episode_id`) and in `infos` (`oracle_action` (U,), `behavior_probability` (U,)).

Source of the format: Younis et al., "Minari" (2024), data sets of format version 0.5.
"""

import json
import math
import pathlib
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.ipc

from icdm.errors import UserError, unknown
from icdm.logs.codings import Bins, Coding, Integers, Words, coding_from_json
from icdm.logs.npz import MOST_PACKED
from icdm.logs.table import NOTHING, Rows, Table
from icdm.memory import at_most

FORMATS = ("hdf5", "arrow")
VERSION = "0.5.0"
MOST_BYTES = 2**30  # of an array of one episode
MOST_OF_EPISODE = 2**31  # bytes that HDF5 may ask for while it reads one
MOST_UNSTORED = 2**20  # bytes of it that a file need not hold
MAIN = "main_data.hdf5"
STEPS = ("observations", "actions", "rewards", "terminations", "truncations")
EXTRA = ("oracle_action", "behavior_probability")


def reader(path: pathlib.Path) -> Callable[[], Iterator[pa.RecordBatch]]:
    """A function that starts a pass over the raw batches, one per episode, of a Minari directory or its `data/`.

    Raises:
      UserError: the directory is no Minari data set, its format or a space is not supported, or an episode is damaged.
    """
    path = path if (path / "metadata.json").exists() else path / "data"
    try:
        header = json.loads((path / "metadata.json").read_text())
        form, n_episodes = str(header.get("data_format", "hdf5")), int(header["total_episodes"])
        spaces = {name: json.loads(header.get(name) or "{}") for name in ("observation_space", "action_space")}
        kinds = {name: space.get("type", "not given") for name, space in spaces.items()}
        shapes = {name: [int(n) for n in space.get("shape") or []] for name, space in spaces.items()}
        codings = {name: coding_from_json(content) for name, content in header.get("codings", {}).items()}
    except Exception:  # of JSON of any form
        raise UserError(f"{path.parent} is no Minari data set: data/metadata.json is missing or damaged") from None
    if form not in FORMATS:
        raise unknown(f"data_format of {path}", form, FORMATS)
    for name, kind in kinds.items():
        if kind not in ("Discrete", "Box") or len(shapes[name]) > 1:
            what = f"{kind} of the shape {tuple(shapes[name])}" if kind == "Box" else kind
            raise UserError(f"{path}: {name} is {what}: Discrete, and Box of numbers or of vectors, are supported")
    words = {name: coding for name, coding in codings.items() if isinstance(coding, Words)}
    episodes = {"hdf5": _hdf5_episodes, "arrow": _arrow_episodes}[form]
    return lambda: (_episode_batch(path, words, *episode) for episode in episodes(path, n_episodes))


def _episode_batch(
    path: pathlib.Path, words: dict[str, Words], number: int, columns: dict, metadata: dict
) -> pa.RecordBatch:
    """U raw rows; the last row has no action and no reward."""
    arrays = {name: columns[name] for name in STEPS[:-1]} | columns["infos"]
    for name, values in arrays.items():
        vectors = name in ("observations", "actions", "oracle_action")
        if values.dtype.kind not in "biuf" or values.dtype.itemsize > 8 or not 1 <= values.ndim <= 1 + vectors:
            raise UserError(
                f"{path}: {name} of episode {number} has the type {values.dtype} and the shape {values.shape}: numbers "
                f"of at most 8 bytes{', or vectors of them,' if vectors else ''} are supported"
            )
    steps = len(columns["rewards"])
    lengths = tuple(len(columns[name]) for name in ("observations", "actions", "terminations"))
    if lengths != (steps + 1, steps, steps) or any(len(x) > steps + 1 for x in columns["infos"].values()):
        raise UserError(
            f"{path}: episode {number} has {steps} rewards, but {lengths} observations, actions, terminations "
            f"instead of {(steps + 1, steps, steps)}, or too many infos"
        )
    try:
        given = (("task_id", 0), ("episode_id", number))
        ids = {name: np.int64(int(metadata.get(name, absent))) for name, absent in given}
    except (AttributeError, TypeError, ValueError, OverflowError):
        raise UserError(f"{path}: task_id or episode_id of episode {number} is no integer of 64 bits") from None
    batch = {
        **{name: np.full(steps + 1, value) for name, value in ids.items()},
        "t": np.arange(steps + 1),
        "observation": columns["observations"],
        "action": columns["actions"],
        "reward": columns["rewards"],
        "terminal": columns["terminations"],
        **{name: columns["infos"].get(name, np.zeros(0)) for name in EXTRA},
    }
    as_words = {name: words.get("action" if name == "oracle_action" else name) for name in batch}
    return pa.RecordBatch.from_pydict(
        {name: _column(path, number, name, values, steps + 1, as_words[name]) for name, values in batch.items()}
    )


def _column(path: pathlib.Path, number: int, name: str, values: np.ndarray, n: int, words: Words | None) -> pa.Array:
    """An Arrow column of n rows; a row is null if its value is nan or absent.

    An oracle's action that is absent is NOTHING where it is an integer, as `_infos` writes it; no other column has a
    number that stands for nothing.
    """
    missing = np.arange(n) >= len(values)
    values = np.concatenate([values, np.zeros((n - len(values), *values.shape[1:]), values.dtype)])
    if values.dtype.kind == "f":
        missing |= np.isnan(values.reshape(n, -1)).all(1)
    elif name == "oracle_action":
        missing |= (values == NOTHING).reshape(n, -1).all(1)
    if words is not None:
        codes = np.where(missing, 0, values)
        if codes.ndim > 1 or (codes % 1 != 0).any() or (codes < 0).any() or (codes >= words.n).any():
            raise UserError(f"{path}: {name} of episode {number} is no code from 0 to {words.n - 1} everywhere")
        values = words.decode(codes.astype(np.int64))
    if values.ndim > 1:
        return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1], mask=pa.array(missing))
    return pa.array(values, mask=missing)


def _hdf5_episodes(path: pathlib.Path, n: int) -> Iterator[tuple[int, dict, dict]]:
    h5py = _h5py()
    try:
        with at_most(MOST_BYTES):
            file = h5py.File(path / MAIN, "r")
        with file:
            for number in range(n):
                with at_most(MOST_OF_EPISODE):
                    group = file[f"episode_{number}"]
                    infos = group.get("infos", {})
                    columns = {name: _array(path, group[name]) for name in STEPS}
                    columns["infos"] = {name: _array(path, infos[name]) for name in EXTRA if name in infos}
                    metadata = dict(group.attrs)
                yield number, columns, metadata
    except UserError:
        raise
    except Exception as error:  # HDF5 raises some ten kinds of exceptions on damaged files
        raise UserError(f"{path / MAIN} cannot be read ({_line(error)}): it may be incomplete") from None


def _array(path: pathlib.Path, data: Any) -> np.ndarray:
    """The values of an HDF5 dataset; what it takes is looked at before they are read."""
    size = math.prod(data.shape) * data.dtype.itemsize
    most = min(MOST_BYTES, MOST_UNSTORED + MOST_PACKED * data.id.get_storage_size())
    if size > most:
        raise UserError(f"{path / MAIN}: {data.name} takes {size:,} bytes: at most {most:,}")
    return np.asarray(data[()])


def _arrow_episodes(path: pathlib.Path, n: int) -> Iterator[tuple[int, dict, dict]]:
    number = 0
    try:
        for number in range(n):
            directory = path / str(number)
            parts = [pa.ipc.open_file(file).read_all() for file in sorted(directory.glob("*.arrow"))]
            table = pa.concat_tables(parts).combine_chunks()
            table.validate(full=True)
            steps = table.num_rows - 1
            columns = {name: _numpy(table.column(name))[: steps + (name == "observations")] for name in STEPS}
            columns["infos"] = {}
            if "infos" in table.column_names:
                infos = table.column("infos").combine_chunks()
                columns["infos"] = {k: _numpy(infos.field(k)) for k in EXTRA if k in [f.name for f in infos.type]}
            yield number, columns, json.loads((directory / "metadata.json").read_text())
    except Exception as error:  # Arrow raises those of Python too on damaged files
        raise UserError(f"{path}: episode {number} cannot be read ({_line(error)})") from None


def _line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:100]


def write_minari(path: pathlib.Path, table: Table, form: str, dataset_id: str) -> None:
    """Writes a table as a Minari data set; an interrupted write leaves no directory.

    Integers and words become Discrete spaces of codes (the metadata hold the words), bins become Box spaces of
    midpoints.

    Raises:
      UserError: the format is unknown, the directory exists, or an episode lacks the observation after its last step
        (the message names the episode).
    """
    if form not in FORMATS:
        raise unknown("Minari format", form, FORMATS)
    if table.codings["observation"].columns:
        raise UserError(f"{path}: observations have several features: write .parquet or .csv instead")
    if path.exists():
        raise UserError(f"{path} exists already: choose another name")
    fresh = pathlib.Path(tempfile.mkdtemp(prefix=path.name, dir=path.parent)) / "set"
    (fresh / "data").mkdir(parents=True)
    try:
        _write(fresh / "data", table, form, dataset_id)
        fresh.rename(path)
    finally:
        shutil.rmtree(fresh.parent, ignore_errors=True)


def _write(data: pathlib.Path, table: Table, form: str, dataset_id: str) -> None:
    n_episodes, n_steps = {"hdf5": _write_hdf5, "arrow": _write_arrow}[form](data, _episodes(table), table.codings)
    spaces = {f"{name}_space": json.dumps(_space(table.codings[name])) for name in ("observation", "action")}
    header = {
        "total_episodes": n_episodes,
        "total_steps": n_steps,
        "data_format": form,
        "jpeg_encoding": False,
        "dataset_id": dataset_id,
        "minari_version": VERSION,
        "codings": {name: coding.as_json() for name, coding in table.codings.items()},
        **spaces,
    }
    (data / "metadata.json").write_text(json.dumps(header))


def _episodes(table: Table) -> Iterator[Rows]:
    for rows in table.chunks():
        for start, stop in zip(rows.starts, np.append(rows.starts[1:], rows.n)):
            episode = rows[start:stop]
            if episode.acted[-1]:
                raise UserError(
                    f"{table.path}: episode {episode.episode_id[0]} of task {episode.task_id[0]} lacks the observation "
                    "after its last step, which Minari needs: add a row without action and reward"
                )
            yield episode


def _columns(episode: Rows, codings: dict[str, Coding]) -> dict[str, np.ndarray]:
    """The arrays of an episode as Minari names them."""
    steps = slice(0, episode.n - 1)
    return {
        "observations": codings["observation"].decode(episode.observation),
        "actions": codings["action"].decode(episode.action[steps]),
        "rewards": episode.reward[steps],
        "terminations": episode.terminal[steps],
        "truncations": ~episode.terminal[steps] & (np.arange(episode.n - 1) == episode.n - 2),
    }


def _infos(episode: Rows, codings: dict[str, Coding]) -> dict[str, np.ndarray]:
    """The `infos` of an episode, (U,); an absent oracle's action is NOTHING, or nan if actions are real."""
    nothing = episode.oracle_action == NOTHING
    oracle = np.array(codings["action"].decode(np.maximum(episode.oracle_action, 0)))
    oracle[nothing] = np.nan if oracle.dtype.kind == "f" else NOTHING
    return {"oracle_action": oracle, "behavior_probability": episode.behavior_probability}


def _write_hdf5(data: pathlib.Path, episodes: Iterable[Rows], codings: dict[str, Coding]) -> tuple[int, int]:
    n, steps = 0, 0
    plain = _as_discrete(codings)
    with _h5py().File(data / MAIN, "w", track_order=True) as file:
        for n, episode in enumerate(episodes, 1):
            group = file.create_group(f"episode_{n - 1}")
            for name, values in _columns(episode, plain).items():
                group[name] = values
            for name, values in _infos(episode, plain).items():
                group[f"infos/{name}"] = values
            group.attrs.update(_metadata(n - 1, episode))
            steps += episode.n - 1
    return n, steps


def _write_arrow(data: pathlib.Path, episodes: Iterable[Rows], codings: dict[str, Coding]) -> tuple[int, int]:
    n, steps = 0, 0
    plain = _as_discrete(codings)
    for n, episode in enumerate(episodes, 1):
        directory = data / str(n - 1)
        directory.mkdir()
        columns = _columns(episode, plain)
        columns = {name: _padded(values, episode.n) for name, values in columns.items()}
        infos = {name: _padded(values, episode.n) for name, values in _infos(episode, plain).items()}
        columns["infos"] = pa.StructArray.from_arrays(list(infos.values()), names=list(infos))
        batch = pa.RecordBatch.from_pydict(columns)
        with pa.ipc.new_file(directory / "part-0.arrow", batch.schema) as file:
            file.write_batch(batch)
        (directory / "metadata.json").write_text(json.dumps(_metadata(n - 1, episode)))
        steps += episode.n - 1
    return n, steps


def _metadata(number: int, episode: Rows) -> dict:
    ids = {"task_id": int(episode.task_id[0]), "episode_id": int(episode.episode_id[0])}
    return {"id": number, "total_steps": episode.n - 1, **ids}


def _padded(values: np.ndarray, n: int) -> pa.Array:
    """A column with zeros appended up to n entries; vectors become lists of a fixed size."""
    values = np.concatenate([values, np.zeros((n - len(values), *values.shape[1:]), values.dtype)])
    if values.ndim == 1:
        return pa.array(values)
    return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])


def _numpy(column: pa.Array | pa.ChunkedArray) -> np.ndarray:
    column = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if pa.types.is_fixed_size_list(column.type):
        return column.flatten().to_numpy(zero_copy_only=False).reshape(len(column), -1)
    return column.to_numpy(zero_copy_only=False)


def _as_discrete(codings: dict[str, Coding]) -> dict[str, Coding]:
    """The codings with words replaced by their codes."""
    return {k: coding if isinstance(coding, Bins) else Integers(coding.n) for k, coding in codings.items()}


def _space(coding: Coding) -> dict:
    if not isinstance(coding, Bins):
        return {"type": "Discrete", "dtype": "int64", "start": 0, "n": coding.n}
    low, high = ([edges[end] for edges in coding.edges] for end in (0, -1))
    shape = [] if coding.scalar else [len(low)]
    low, high = (low[0], high[0]) if coding.scalar else (low, high)
    return {"type": "Box", "dtype": "float64", "shape": shape, "low": low, "high": high}


def _h5py():
    try:
        import h5py
    except ImportError:
        raise UserError("Minari's HDF5 files need h5py: pip install 'icdm[data]'") from None
    return h5py
