"""Readers of recorded data on files with random damage: each is read or refused in one line."""

import functools
import io
import json
import pathlib
import tempfile
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fuzzing import mutated, reads_or_refuses
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from recorded_files import GOOD, HEADER, random_rows

from icdm.logs.convert import convert, to_table
from icdm.logs.describe import describe
from icdm.logs.table import open_table, plain_codings, write_table
from icdm.runs.decide import _live, _present
from icdm.runs.task_rows import own_codings, read_rows

SETTINGS = dict(database=None, suppress_health_check=list(HealthCheck))
QUICK = settings(max_examples=500, **SETTINGS)
SLOW = settings(max_examples=20_000, **SETTINGS)
SEEDS = st.integers(0, 2**32 - 1)
CASES = pathlib.Path(__file__).parent / "data" / "cases"


def csv_files():
    found = [path.read_bytes() for path in sorted(CASES.glob("L*/log.*"))]
    return {f"{i}.csv": content for i, content in enumerate([GOOD.encode(), *found])}


def parquet_files():
    rows = random_rows(np.random.default_rng(0), 6)
    table = pa.table(
        {
            "task_id": pa.array(["a", "a", "b"]).dictionary_encode(),
            "episode_id": pa.array([0, 0, 1], pa.uint64()),
            "t": pa.array([0.0, 1.0, 0.0]),
            "observation": pa.FixedSizeListArray.from_arrays(pa.array(np.arange(6.0)), 2),
            "action": pa.array(["left", "right", None]),
            "reward": pa.array([1, -1, None]),
            "terminal": pa.array([False, True, None]),
        }
    )
    files = {}
    with tempfile.TemporaryDirectory() as directory:
        path = pathlib.Path(directory) / "x.parquet"
        write_table(path, [rows], plain_codings(9, 4))
        files["table.parquet"] = path.read_bytes()
        for compression in ("none", "zstd"):
            pq.write_table(table, path, compression=compression)
            files[f"{compression}.parquet"] = path.read_bytes()
        episodes = {"observations": [[[0.0, 1.0], [1.0, 1.0]], [[2.0, 0.0]]], "actions": [["a", "b"], ["a"]]}
        episodes |= {"rewards": [[1.0, 0.0], [-1.0]], "dones": [[False, True], [True]], "episode_id": [4, 7]}
        pq.write_table(pa.table(episodes), path)
        files["lists.parquet"] = path.read_bytes()
    return files | {f"{path.parent.name}.parquet": path.read_bytes() for path in sorted(CASES.glob("P*/*.parquet"))}


def npz_files():
    rng = np.random.default_rng(0)
    bandit = {"actions": rng.integers(0, 3, (4, 5)), "rewards": rng.random((4, 5)), "optimal": rng.integers(0, 3, 4)}
    pairs = {name: rng.integers(0, 3, (4, 5, 2)) for name in ("states", "next_states")}
    room = bandit | pairs | {name: rng.integers(0, 3, (4, 2)) for name in ("query", "goal")}
    files = {"d3rlpy.npz": (CASES / "N01_d3rlpy_npz" / "data.npz").read_bytes()}
    for name, arrays in (("bandit", bandit | {"means": rng.random((4, 3))}), ("room", room)):
        for save in (np.savez, np.savez_compressed):
            held = io.BytesIO()
            save(held, **{f"train_{key}": x for key, x in arrays.items()})
            files[f"{name}_{save.__name__}.npz"] = held.getvalue()
    return files


def minari_files():
    """The files of small data sets, each with its name inside the directory."""
    rows = random_rows(np.random.default_rng(0), 4)
    closed = rows[np.isin(rows.episode_id, rows.episode_id[~rows.acted])]
    files = {}
    with tempfile.TemporaryDirectory() as directory:
        for form in ("hdf5", "arrow"):
            write_table(pathlib.Path(directory) / "x.parquet", [closed], plain_codings(9, 4))
            convert(pathlib.Path(directory) / "x.parquet", pathlib.Path(directory) / form, minari=form)
            members = sorted(path for path in (pathlib.Path(directory) / form).rglob("*") if path.is_file())
            files[form] = {str(path.relative_to(pathlib.Path(directory) / form)): path.read_bytes() for path in members}
    return files


MAKERS = {"csv": csv_files, "parquet": parquet_files, "npz": npz_files, "minari": minari_files}


@functools.cache
def files_of(kind):
    return MAKERS[kind]()


def read_all(path, out):
    """Everything that `icdm describe --json` and `icdm convert` do with a file."""
    json.dumps(describe(path, sort=len(path.name) % 2 == 0), allow_nan=False)
    to_table(path, out, repair="truncate")
    for _ in open_table(out).chunks():
        pass


def fuzz_file(kind, seed):
    files = files_of(kind)
    name = list(files)[seed % len(files)]
    with tempfile.TemporaryDirectory() as directory:
        path = pathlib.Path(directory) / name
        path.write_bytes(mutated(files[name], list(files.values()), seed))
        reads_or_refuses(read_all, path, path.with_name("out.parquet"))


def fuzz_minari(seed):
    sets = files_of("minari")
    members = sets[list(sets)[seed % len(sets)]]
    damaged = list(members)[seed // len(sets) % len(members)]
    with tempfile.TemporaryDirectory() as directory:
        place = pathlib.Path(directory) / ("set", "sets")[seed // 100 % 2]  # every other one is sorted
        for name, content in members.items():
            path = place / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(mutated(content, list(members.values()), seed) if name == damaged else content)
        reads_or_refuses(read_all, place, place.with_name("out.parquet"))


CONTEXT = HEADER + "0,0,0,5,1,0.55,\n0,0,1,4,0,-0.02,\n0,0,2,5,2,-0.02,true\n0,1,0,6,1,0,\n0,1,1,6,,,\n"
HISTORY = HEADER + "0,0,0,5,1,0.55,false\n0,0,1,4,,,false\n"


def fuzz_decide(seed):
    codings = plain_codings(10, 3)
    with tempfile.TemporaryDirectory() as directory:
        for name, content, read in (("c", CONTEXT, _context), ("h", HISTORY, _history)):
            path = pathlib.Path(directory) / f"{name}.csv"
            path.write_bytes(mutated(content.encode(), [CONTEXT.encode(), HISTORY.encode()], seed))
            reads_or_refuses(read, path, codings)
            reads_or_refuses(_record, path)
    reads_or_refuses(_now, mutated(b"5", [b"2.9", b"1e39", b"-1"], seed).decode("latin-1"), codings)


def _record(path):
    """A record in the codings that its own values suggest."""
    _context(path, own_codings(path))


def _context(path, codings):
    rows = read_rows(path, codings, None).rows
    _within(rows.observation, rows.action[rows.acted], rows.reward, codings)


def _history(path, codings):
    rows = _live(path, codings, 0).rows[:-1]
    _within(rows.observation, rows.action, rows.reward, codings)


def _now(text, codings):
    _within(np.array(_present(text, codings["observation"])), np.array(0), np.array(0.0), codings)


def _within(observation, action, reward, codings):
    for name, code in (("observation", observation), ("action", action)):
        assert ((code >= 0) & (code < codings[name].n)).all()
    assert np.isfinite(reward.astype(np.float32)).all()


FUZZ = {kind: functools.partial(fuzz_file, kind) for kind in ("csv", "parquet", "npz")}
FUZZ |= {"minari": fuzz_minari, "decide": fuzz_decide}


@pytest.mark.parametrize("kind", FUZZ)
def test_damaged_files_are_read_or_refused(kind):
    @QUICK
    @given(seed=SEEDS)
    def fuzz(seed):
        FUZZ[kind](seed)

    fuzz()


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kind", FUZZ)
def test_20_000_damaged_files_are_read_or_refused(kind):
    @SLOW
    @given(seed=SEEDS)
    def fuzz(seed):
        FUZZ[kind](seed)

    fuzz()


def test_files_that_claim_to_be_large_are_refused_before_they_are_read(tmp_path):
    for shape, descr in ((10**12,), "<f8"), ((2**40, 2**40), "<i8"):
        with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
            held = io.BytesIO()
            np.lib.format.write_array_header_1_0(held, {"shape": shape, "fortran_order": False, "descr": descr})
            archive.writestr("train_actions.npy", held.getvalue() + b"\0" * 64)
        assert not reads_or_refuses(describe, tmp_path / "x.npz")
    long = pa.DictionaryArray.from_arrays(pa.array(np.zeros(2**17, np.int32)), pa.array(["x" * 2**16]))
    zeros = pa.array(np.zeros(2**17, np.int64))
    columns = {name: zeros for name in ("task_id", "episode_id", "t", "action", "reward")} | {"observation": long}
    pq.write_table(pa.table(columns), tmp_path / "x.parquet")
    assert (tmp_path / "x.parquet").stat().st_size < 2**17
    assert not reads_or_refuses(describe, tmp_path / "x.parquet")
