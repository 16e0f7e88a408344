"""The table of recorded steps: coding, checks, repairs, round trips, and a loader that resumes."""

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recorded_files import GOOD, random_rows, write

from icdm.cli import main
from icdm.errors import UserError
from icdm.logs.codings import UNKNOWN, Bins, Integers, Words, coding_from_json, fit_bins
from icdm.logs.convert import convert
from icdm.logs.describe import describe
from icdm.logs.table import open_table, plain_codings, write_table


@settings(max_examples=30)
@given(
    st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=60),
    st.integers(2, 9),
    st.sampled_from(["quantile", "uniform"]),
)
def test_bins_are_invertible(values, n, binning):
    bins = coding_from_json(fit_bins(np.array(values), n, binning).as_json())
    codes = np.arange(bins.n)
    np.testing.assert_array_equal(bins.encode(bins.decode(codes)), codes)
    edges = np.array(bins.edges[0])
    found = bins.encode(np.array(values))
    assert (edges[found] <= values).all() and (values <= edges[found + 1]).all()


def test_a_grid_of_bins_codes_vectors():
    values = np.random.default_rng(0).uniform(-1, 1, (500, 3))
    bins = fit_bins(values, 4, "uniform")
    assert bins.n == 64
    assert np.abs(bins.decode(bins.encode(values)) - values).max() <= 0.25 * 1.01
    np.testing.assert_array_equal(bins.encode(bins.decode(np.arange(64))), np.arange(64))


def test_quantile_bins_hold_equally_many():
    counts = np.bincount(
        fit_bins(np.random.default_rng(0).exponential(size=8000), 8, "quantile").encode(
            np.random.default_rng(0).exponential(size=8000)
        )
    )
    assert counts.min() > 990 and counts.max() < 1010


def test_unknown_values_get_no_code():
    assert Words(("a", "c")).encode(np.array(["a", "b", "z"])).tolist() == [0, UNKNOWN, UNKNOWN]
    assert Integers(3).encode(np.array([2, 3, -1])).tolist() == [2, UNKNOWN, UNKNOWN]
    assert Bins(((0.0, 1.0, 2.0),)).encode(np.array([np.nan, 5.0])).tolist() == [UNKNOWN, 1]


def test_words_round_trip_through_csv(tmp_path):
    source = write(tmp_path / "log.csv", GOOD)
    convert(source, tmp_path / "log.parquet")
    table = open_table(tmp_path / "log.parquet")
    assert table.codings["action"] == Words(("down", "up")) and table.longest == 2
    convert(tmp_path / "log.parquet", tmp_path / "back.csv")
    convert(tmp_path / "back.csv", tmp_path / "again.parquet")
    assert pq.read_table(tmp_path / "log.parquet").equals(pq.read_table(tmp_path / "again.parquet"))


def test_row_groups_do_not_cut_episodes(tmp_path, monkeypatch):
    monkeypatch.setattr("icdm.logs.table.ROW_GROUP", 16)
    rows = random_rows(np.random.default_rng(0))
    table = write_table(tmp_path / "x.parquet", [rows], plain_codings(9, 4))
    chunks = list(table.chunks())
    assert len(chunks) > 3
    keys = [key for chunk in chunks for key in set(zip(chunk.task_id.tolist(), chunk.episode_id.tolist()))]
    assert len(keys) == len(set(keys)) == 40
    for name in ("t", "observation", "action", "reward", "oracle_action"):
        np.testing.assert_array_equal(np.concatenate([getattr(c, name) for c in chunks]), getattr(rows, name))


DEFECTS = {
    "a gap": ("B,e2,1,high", "B,e2,2,high", 4, "t"),
    "no reward": ("A,e1,0,low,up,0.5", "A,e1,0,low,up,", 1, "reward"),
    "not a number": ("A,e1,0,low,up,0.5", "A,e1,0,low,up,much", 1, "reward"),
    "no observation": ("A,e1,0,low", "A,e1,0,", 1, "observation"),
    "no task": ("A,e1,1", ",e1,1", 2, "task_id"),
    "an action missing within": ("A,e1,0,low,up,0.5", "A,e1,0,low,,", 1, "action"),
    "a reward without action": ("B,e2,1,high,,,", "B,e2,1,high,,1,", 4, "action"),
    "going on after the end": ("up,0.5,false", "up,0.5,true", 2, "terminal"),
    "an episode in two parts": (
        "B,e2,1,high,,,false\n",
        "B,e2,1,high,,,false\nA,e1,2,low,up,1,false\n",
        5,
        "episode_id",
    ),
}


@pytest.mark.parametrize("name", DEFECTS)
def test_a_defect_is_refused_with_row_and_column(name, tmp_path):
    before, after, row, column = DEFECTS[name]
    assert before in GOOD
    source = write(tmp_path / "log.csv", GOOD.replace(before, after, 1))
    with pytest.raises(UserError, match=rf"log\.csv: row {row}, column {column}: "):
        convert(source, tmp_path / "out.parquet")
    assert not list(tmp_path.glob("out*"))
    found = describe(source)["defects"][column]
    assert found["first_row"] == row


@pytest.mark.parametrize("repair, kept", [("drop", 2), ("truncate", 3)])
def test_repairs_count_what_they_drop(repair, kept, tmp_path):
    source = write(tmp_path / "log.csv", GOOD.replace("B,e2,1,high", "B,e2,5,high"))
    told = convert(source, tmp_path / "out.parquet", repair=repair)
    assert f"1 episodes repaired, {4 - kept} rows dropped" in told and "row 4, column t" in told
    assert open_table(tmp_path / "out.parquet").n_rows == kept


def test_mistakes_are_told_in_one_line(tmp_path, capsys):
    (tmp_path / "cut.parquet").write_bytes(b"PAR1 and no more")
    write(tmp_path / "columns.csv", "task_id,t\n1,2\n")
    write(tmp_path / "ragged.csv", GOOD + "B,e9,0\n")
    write(tmp_path / "empty.csv", "")
    write(tmp_path / "odd.csv", GOOD.replace("terminal", "termnal"))
    for source in ("cut.parquet", "columns.csv", "ragged.csv", "empty.csv", "odd.csv", "absent.csv", "x.txt"):
        with pytest.raises(SystemExit) as stopped:
            main(["convert", str(tmp_path / source), str(tmp_path / "out.parquet")])
        error = capsys.readouterr().err
        assert stopped.value.code == 2 and source in error and error.count("\n") == 1, error


def test_a_table_without_rows_is_refused(tmp_path):
    write_table(tmp_path / "x.parquet", [random_rows(np.random.default_rng(0), 6)], plain_codings(9, 4))
    pq.write_table(pq.read_table(tmp_path / "x.parquet").slice(0, 0), tmp_path / "x.parquet")
    with pytest.raises(UserError, match="x.parquet holds no rows"):
        describe(tmp_path / "x.parquet")


def test_describe_counts(tmp_path):
    found = describe(write(tmp_path / "log.csv", GOOD))
    assert (found["rows"], found["steps"], found["tasks"], found["episodes"]) == (4, 3, 2, 2)
    assert found["actions"] == {"down": 1, "up": 2}
    assert found["pairs_seen"] == 2 and found["defects"] == {} and found["terminal_episodes"] == 1
    assert found["return"]["max"] == 1.5
