"""Files as users have them: nothing in them is rounded, merged or lost in silence; what is guessed is said."""

import json
import pathlib
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recorded_files import GOOD, HEADER, write

from icdm.cli import main
from icdm.errors import UserError
from icdm.logs.codings import Integers, Words
from icdm.logs.columns import plain
from icdm.logs.convert import convert
from icdm.logs.describe import describe
from icdm.logs.log import load
from icdm.logs.table import SCHEMA, join, open_table

CASES = pathlib.Path(__file__).parent / "data" / "cases"
COLUMNS = "task_id,episode_id,t,observation,action,reward\n"


def rows_of(source, tmp_path, **reading):
    """(what convert says, the codings, the rows)."""
    said = convert(source, tmp_path / "out.parquet", overwrite=True, **reading)
    table = open_table(tmp_path / "out.parquet")
    return said, table.codings, join(list(table.chunks()))


@pytest.mark.parametrize("written", ["{}.0", "{}.", "{}", "{}e0", "+{}", " {} "])
def test_whole_numbers_are_integers_however_they_are_written(written, tmp_path):
    rng = np.random.default_rng(0)
    steps = [(rng.integers(5), rng.integers(3)) for _ in range(200)]
    lines = [f"0,{i},0,{written.format(o)},{written.format(a)},0.5" for i, (o, a) in enumerate(steps)]
    found = describe(write(tmp_path / "log.csv", COLUMNS + "\n".join(lines) + "\n"))
    assert (found["observations"], found["n_actions"], found["defects"]) == (5, 3, {})
    assert found["codings"]["observation"] == found["codings"]["action"] == "integers" and not found["notes"]


def test_reals_in_parquet_that_are_whole_are_integers(tmp_path):
    whole = pa.array([0.0, 1.0, 4.0, None])  # as pandas writes a column of integers with a gap
    columns = dict(task_id=[0] * 4, episode_id=[0] * 4, t=[0, 1, 2, 3], observation=[0.0, 1.0, 4.0, 2.0])
    pq.write_table(pa.table(columns | {"action": whole, "reward": [1.0, -1.0, 0.0, None]}), tmp_path / "log.parquet")
    _, codings, rows = rows_of(tmp_path / "log.parquet", tmp_path)
    assert codings["observation"] == codings["action"] == Integers(5)
    assert rows.action.tolist() == [0, 1, 4, -1] and rows.reward.tolist() == [1, -1, 0, 0]


def test_binning_is_said_and_can_be_asked_for(tmp_path):
    halves = write(tmp_path / "log.csv", COLUMNS + "0,0,0,0.5,0,1\n0,0,1,1,1,1\n")
    assert "observation holds real numbers" in convert(halves, tmp_path / "a.parquet")
    main(["convert", str(halves), str(tmp_path / "b.parquet"), "--words", "observation"])
    assert open_table(tmp_path / "b.parquet").codings["observation"] == Words(("0.5", "1"))
    large = write(tmp_path / "large.csv", COLUMNS + "0,0,0,5000000,0,1\n0,0,1,1,1,1\n")
    with pytest.raises(UserError, match="holds 5000000.* --words observation .* --reals observation"):
        describe(large)
    assert describe(large, reals=["observation"])["codings"]["observation"] == "bins"
    with pytest.raises(UserError, match="unknown column 'reward'"):
        describe(large, words=["reward"])


@given(st.lists(st.integers(0, 2**63 - 2), min_size=1, max_size=9, unique=True))
@settings(max_examples=30)
def test_ids_of_64_bits_are_exact(tmp_path_factory, ids):
    tmp_path = tmp_path_factory.mktemp("ids")
    source = write(tmp_path / "log.csv", COLUMNS + "".join(f"{id},{id},0,0,0,0\n" for id in ids))
    _, _, rows = rows_of(source, tmp_path)
    assert rows.task_id.tolist() == rows.episode_id.tolist() == ids


def test_snowflake_ids_stay_apart_and_inexact_ones_are_refused(tmp_path):
    assert describe(CASES / "L03d_snowflake_silent" / "log.csv")["tasks"] == 4
    for text in ("1e30", "9223372036854775808", "-1", "1.5e18"):
        source = write(tmp_path / "log.csv", COLUMNS + f"{text},0,0,0,0,0\n")
        if text == "1.5e18":
            assert describe(source)["defects"] == {}
        else:
            assert "is not an integer from 0 of at most 64 bits" in describe(source)["defects"]["task_id"]["first"]
    columns = dict(zip(COLUMNS.strip().split(","), [[2.0**60], [0], [0], [0], [0], [0]]))
    pq.write_table(pa.table(columns), tmp_path / "log.parquet")
    assert "is not exact" in describe(tmp_path / "log.parquet")["defects"]["task_id"]["first"]


def test_categories_that_look_like_numbers_are_words_where_asked(tmp_path):
    zeros, codes = (CASES / name / "log.csv" for name in ("L04b_leading_zeros", "L04c_icd9_with_V_codes"))
    assert any("--words observation" in note for note in describe(zeros)["notes"])
    assert describe(zeros, words=["observation"])["observations"] == 6
    assert describe(codes, words=["observation"])["observations"] == 6
    with pytest.raises(UserError, match="row 2, column observation: 'V45.81' is not a number .*--words observation"):
        convert(codes, tmp_path / "out.parquet")


def test_blanks_are_stripped_and_near_names_are_reported(tmp_path):
    found = describe(CASES / "L09_action_blanks" / "log.csv")
    assert set(found["actions"]) == {"Left", "left", "right"}
    assert any("blanks around 6 words" in note for note in found["notes"])
    assert any("'Left' and 'left'" in note for note in found["notes"])
    said = convert(write(tmp_path / "na.csv", COLUMNS + "0,0,0,0,NA,1\n0,0,1,0,up,1\n"), tmp_path / "na.parquet")
    assert "'NA' is a name here" in said


def test_steps_may_be_counted_from_1_or_ordered_by_time(tmp_path):
    said, _, rows = rows_of(CASES / "L05_t_from_1" / "log.csv", tmp_path)
    assert "t is counted from 1" in said and rows.t.reshape(5, 4).tolist() == [[0, 1, 2, 3]] * 5
    stamps = CASES / "L05b_timestamps" / "log.csv"
    with pytest.raises(UserError, match="column t: '2101-03-01 00:00:00' is not a number .*--sort"):
        convert(stamps, tmp_path / "x.parquet")
    _, _, rows = rows_of(stamps, tmp_path, sort=True)
    assert rows.t.reshape(3, 4).tolist() == [[0, 1, 2, 3]] * 3
    twice = stamps.read_text().replace("04:00:00", "00:00:00", 1)
    assert describe(write(tmp_path / "twice.csv", twice), sort=True)["defects"]["t"]["rows"] == 3
    with pytest.raises(UserError, match="no integers and no time stamps"):
        describe(write(tmp_path / "text.csv", stamps.read_text().replace("2101-03", "March")), sort=True)


def test_an_episode_that_begins_late_is_a_defect(tmp_path):
    source = write(tmp_path / "log.csv", COLUMNS + "0,0,1,0,0,0\n0,0,2,0,0,0\n0,1,2,0,0,0\n0,1,3,0,0,0\n")
    assert describe(source)["defects"]["t"] == {
        "rows": 2,
        "first_row": 3,
        "first": "step 1 instead of 0, counted from 0: a step is missing or repeated",
    }


def test_interleaved_episodes_are_sorted_or_counted_once(tmp_path):
    source = CASES / "L06_interleaved" / "log.csv"
    found = describe(source)
    assert found["episodes"] == 3 and found["defects"]["episode_id"]["rows"] == 9
    with pytest.raises(UserError, match="no steps to write"):  # no episode is whole
        convert(source, tmp_path / "x.parquet", repair="drop")
    said, _, rows = rows_of(source, tmp_path, repair="truncate")
    assert "3 episodes repaired, 9 rows dropped" in said and rows.n == 3
    _, _, rows = rows_of(source, tmp_path, sort=True)
    assert rows.n == 12 and rows.episode_id.tolist() == [0] * 4 + [1] * 4 + [2] * 4


def test_truth_values_are_those_of_r_and_excel_and_nothing_else(tmp_path):
    assert describe(CASES / "L10_terminal_R" / "log.csv")["terminal_episodes"] == 3
    for text in ("0.5", "-1", "yes", "2"):
        found = describe(write(tmp_path / "log.csv", GOOD.replace("1,true", f"1,{text}")))
        assert "is not a truth value" in found["defects"]["terminal"]["first"]
    for text in ("TRUE", "1", "t", "1.0"):
        assert describe(write(tmp_path / "log.csv", GOOD.replace("1,true", f"1,{text}")))["terminal_episodes"] == 1


DIALECTS = {
    "L11b_semicolon/log.csv": ["semicolons", "reward have a decimal comma"],
    "L11d_utf16/log.csv": ["utf-16"],
    "L11e_header_blanks/log.csv": ["' episode_id'"],
    "L11g_upper_header/log.csv": ["'TASK_ID'"],
    "L12_gz/log.csv.gz": [],
    "L12_tsv/log.tsv": ["tabs"],
    "L13b_extra_column/log.csv": ["not read: charttime"],
    "P07_string_view/log.parquet": [],
    "P08_all_null_oracle/log.parquet": [],
}


@pytest.mark.parametrize("name", DIALECTS)
def test_dialects_are_read_and_said(name):
    found = describe(CASES / name)
    assert (found["rows"], found["episodes"], found["defects"]) == (9, 3, {})
    assert list(found["actions"].values()) == [6, 3] and found["reward"]["mean"] == 0.5
    assert found["rows_with_oracle_action"] == 0
    assert len(found["notes"]) == len(DIALECTS[name]) and all(map(str.__contains__, found["notes"], DIALECTS[name]))


def test_latin_1_words_are_read(tmp_path):
    (tmp_path / "log.csv").write_bytes((COLUMNS + "0,0,0,0,gelöst,1\n0,0,1,0,offen,1\n").encode("latin-1"))
    found = describe(tmp_path / "log.csv")
    assert set(found["actions"]) == {"gelöst", "offen"} and "read as latin-1" in found["notes"]


def test_what_is_no_text_or_no_single_column_is_refused_in_one_line(tmp_path):
    (tmp_path / "sheet.csv").write_bytes(b"PK\3\4 and so on")
    (tmp_path / "raw.csv").write_bytes(b"task_id\0\0\0,t")
    twice = write(tmp_path / "twice.csv", COLUMNS.strip() + ",t\n" + "0,0,0,0,0,0,0\n")
    refused = {
        tmp_path / "sheet.csv": "is a zip archive, such as a spreadsheet",
        tmp_path / "raw.csv": "is no text",
        twice: "column t is there 2 times",
        CASES / "L13_features" / "log.csv": "column observation is missing .* --columns observation=",
    }
    for path, message in refused.items():
        with pytest.raises(UserError, match=message) as error:
            describe(path)
        assert "\n" not in str(error.value)


TYPES = {
    "list": pa.array([[1.0], [2.0]]),
    "struct": pa.array([{"a": 1}, {"a": 2}]),
    "binary": pa.array([b"a", b"b"]),
    "timestamp": pa.array([1, 2], pa.timestamp("us")),
    "date": pa.array([1, 2], pa.date32()),
    "duration": pa.array([1, 2], pa.duration("s")),
    "decimal": pa.array([1, 2]).cast(pa.decimal128(30, 2)),
}


@pytest.mark.parametrize("name", ["observation", "reward", "t", "task_id", "terminal"])
@pytest.mark.parametrize("kind", TYPES)
def test_types_that_are_not_supported_are_named(kind, name, tmp_path):
    columns = dict(task_id=[0, 0], episode_id=[0, 0], t=[0, 1], observation=[0, 1], action=[0, 1], reward=[0.0, 1.0])
    pq.write_table(pa.table(columns | {name: TYPES[kind]}), tmp_path / "log.parquet")
    if name == "t" and kind in ("timestamp", "date"):
        assert describe(tmp_path / "log.parquet", sort=True)["defects"] == {}
        return
    if name == "observation" and kind == "list":
        assert describe(tmp_path / "log.parquet")["defects"] == {}
        return
    with pytest.raises(UserError, match=rf"column {name} is of the type {kind}.*are supported"):
        describe(tmp_path / "log.parquet")


def test_lists_are_vectors_if_they_are_equally_long(tmp_path):
    found = describe(CASES / "P02_list_obs" / "log.parquet")
    assert (found["steps"], found["defects"], found["observations_seen"]) == (9, {}, 9)
    table = pq.read_table(CASES / "P02_list_obs" / "log.parquet")
    lists = table.column("observation").to_pylist()
    for changed in ([None, *lists[1:]], [[*lists[0], 1.0], *lists[1:]], [[], *lists[1:]]):
        other = table.set_column(table.schema.names.index("observation"), "observation", [changed])
        pq.write_table(other, tmp_path / "log.parquet")
        if changed[0] is None:
            assert "observation" in describe(tmp_path / "log.parquet")["defects"]
            continue
        with pytest.raises(UserError, match="vectors of column observation differ in length"):
            describe(tmp_path / "log.parquet")


def test_a_dictionary_that_lacks_a_value_is_refused():
    for values in (["a", "b"], [1, 2]):
        column = pa.DictionaryArray.from_arrays(pa.array([0, 5]), pa.array(values), safe=False)
        with pytest.raises(UserError, match="column action refers to values that the file does not hold"):
            plain(pathlib.Path("log.parquet"), "action", column)


def test_ids_near_a_million_are_counted_where_they_occur(tmp_path):
    found = describe(CASES / "L16_big_ids" / "log.csv")
    assert len(found["actions"]) == found["observations_seen"] == found["pairs_seen"] == found["rows"] == 20
    convert(CASES / "L16_big_ids" / "log.csv", tmp_path / "log.parquet")
    again = describe(tmp_path / "log.parquet")
    assert {**again, "file": found["file"]} == found


def test_missing_rewards_are_0_only_where_asked(tmp_path):
    source = CASES / "L17_sparse" / "log.csv"
    found = describe(source)
    assert found["defects"]["reward"]["rows"] == 9 and found["reward"]["mean"] == 1
    assert "--missing-reward zero" in found["defects"]["reward"]["first"]
    said, _, rows = rows_of(source, tmp_path, missing_reward="zero")
    assert "9 steps without a reward count as 0" in said and rows.reward.tolist() == [0, 0, 0, 1] * 3


def test_the_arrays_of_d3rlpy_are_read(tmp_path):
    found = describe(CASES / "N01_d3rlpy_npz" / "data.npz")
    assert (found["steps"], found["episodes"], found["terminal_episodes"], found["defects"]) == (20, 4, 4, {})
    np.savez(tmp_path / "x.npz", obs=np.zeros(3))
    with pytest.raises(UserError, match="holds obs: the arrays of DPT .* and those of d3rlpy"):
        describe(tmp_path / "x.npz")
    arrays = dict(observations=np.zeros((3, 2)), actions=np.zeros(3, int), rewards=np.zeros(4), terminals=np.zeros(3))
    np.savez(tmp_path / "x.npz", **arrays)
    with pytest.raises(UserError, match=r"observations has the shape \(3, 2\)"):
        describe(tmp_path / "x.npz")


@pytest.mark.parametrize("damage", ["nested", "object", "encrypted", "negative"])
def test_arrays_that_are_no_numbers_are_refused(damage, tmp_path):
    good = {"train_actions": np.array([[0, 1]]), "train_rewards": np.ones((1, 2))}
    good |= {"train_optimal": np.zeros(1, int), "train_means": np.ones((1, 2))}
    if damage == "object":
        good["train_means"] = np.array([[None, "x"]])
    if damage == "negative":
        good["train_actions"] = np.array([[0, -1]])
    np.savez(tmp_path / "x.npz", **good)
    if damage == "nested":
        with zipfile.ZipFile(tmp_path / "x.npz", "a") as archive:
            archive.writestr("more.npz", b"PK")
    if damage == "encrypted":
        content = bytearray((tmp_path / "x.npz").read_bytes())
        content[content.index(b"PK\1\2") + 8] |= 1
        (tmp_path / "x.npz").write_bytes(content)
    message = dict(
        nested="no array", object="has the type object", encrypted="is encrypted", negative=r"\[0, 1\] is -1"
    )
    with pytest.raises(UserError, match=message[damage]):
        describe(tmp_path / "x.npz")


def test_a_table_with_damaged_codings_or_codes_is_refused(tmp_path):
    convert(write(tmp_path / "log.csv", GOOD), tmp_path / "log.parquet")
    whole = pq.read_table(tmp_path / "log.parquet")
    header = json.loads(whole.schema.metadata[b"icdm"]) if whole.schema.metadata else None
    header = header or json.loads(pq.read_metadata(tmp_path / "log.parquet").metadata[b"icdm"])
    for content in (b"{", b"[]", json.dumps(header | {"codings": {}}).encode()):
        pq.write_table(whole.cast(SCHEMA).replace_schema_metadata({b"icdm": content}), tmp_path / "bad.parquet")
        with pytest.raises(UserError, match="codings or columns are damaged"):
            describe(tmp_path / "bad.parquet")
    rows = whole.set_column(4, "action", pa.array([-1, 7, 0, None], pa.int32()))
    metadata = {b"icdm": json.dumps(header).encode()}
    pq.write_table(rows.cast(SCHEMA).replace_schema_metadata(metadata), tmp_path / "bad.parquet")
    assert describe(tmp_path / "bad.parquet")["defects"]["action"]["rows"] == 2


def test_a_reward_beyond_32_bits_is_a_defect(tmp_path):
    found = describe(write(tmp_path / "log.csv", GOOD.replace("0.5,false", "1e39,false")))
    assert "32 bits" in found["defects"]["reward"]["first"]


def test_convert_overwrites_nothing_unasked(tmp_path, capsys):
    source = write(tmp_path / "log.csv", GOOD)
    for out, message in (("log.csv", "is the file that is read"), ("other.csv", "exists already: choose another OUT")):
        held = write(tmp_path / out, GOOD).read_bytes()
        with pytest.raises(SystemExit):
            main(["convert", str(source), str(tmp_path / out)])
        assert message in capsys.readouterr().err and (tmp_path / out).read_bytes() == held
    main(["convert", str(source), str(tmp_path / "other.csv"), "--overwrite"])
    assert (tmp_path / "other.csv").read_text().startswith('"task_id"')
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log.csv", "other.csv"]


def test_the_terminal_step_reaches_the_log(tmp_path):
    """Also where it is marked at the observation after the last step."""
    marked = HEADER + "A,e1,0,low,up,0.5,false\nA,e1,1,high,,,true\nA,e2,0,low,up,1,false\nA,e2,1,low,,,false\n"
    for text in (marked, marked.replace("0.5,false", "0.5,true").replace(",,true", ",,false")):
        convert(write(tmp_path / "log.csv", text), tmp_path / "log.parquet", overwrite=True)
        assert load(open_table(tmp_path / "log.parquet")).terminal[[0, 2]].tolist() == [True, False]


def test_describe_prints_json_whatever_the_defects(tmp_path, capsys):
    for case in ("L05_t_from_1/log.csv", "L06_interleaved/log.csv", "L17_sparse/log.csv"):
        main(["describe", str(CASES / case), "--json"])
        assert json.loads(capsys.readouterr().out)["rows"] > 0


OWN_NAMES = "Stay;day;HR;dose given;payoff;spare\ns1;0;low;a;0,5;x\ns1;1;high;b;1;x\ns2;0;low;a;0,25;y\n"
OWN_COLUMNS = ["episode_id=Stay", "t=day", "observation=HR", "action=dose given", "reward=payoff"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "latin-1"])
def test_columns_of_ones_own_are_named_and_others_left_out(encoding, tmp_path, capsys):
    (tmp_path / "log.csv").write_bytes(OWN_NAMES.replace("low", "tief\u00e4").encode(encoding))
    said, codings, rows = rows_of(tmp_path / "log.csv", tmp_path, columns=OWN_COLUMNS)
    assert "columns that are not read: spare" in said and "no column task_id: all rows are of one task" in said
    assert codings["observation"] == Words(("high", "tief\u00e4")) and codings["action"] == Words(("a", "b"))
    assert rows.reward.tolist() == [0.5, 1, 0.25] and rows.t.tolist() == [0, 1, 0] and set(rows.task_id) == {0}
    main(["describe", str(tmp_path / "log.csv"), "--json", "--columns", *OWN_COLUMNS])
    assert json.loads(capsys.readouterr().out)["episodes"] == 2


@pytest.mark.parametrize(
    "columns,said",
    [
        (["observation"], "column map observation: give NAME=COLUMN"),
        (["observaton=HR"], "unknown name in the column map 'observaton': did you mean 'observation'"),
        (["observation=HRT"], "unknown column of .* 'HRT'"),
        (["observation=HR", "observation=day"], "names observation twice: HR and day"),
        (["observation=HR"], "column episode_id is missing .* name it by --columns episode_id="),
    ],
)
def test_a_column_map_that_does_not_fit_is_refused(columns, said, tmp_path):
    with pytest.raises(UserError, match=said):
        describe(write(tmp_path / "log.csv", OWN_NAMES), columns=columns)


def test_a_named_column_stands_before_one_of_the_tables_own_name(tmp_path):
    source = write(tmp_path / "log.csv", COLUMNS.replace("reward", "reward,net") + "0,0,0,0,0,9,1\n0,1,0,0,0,9,2\n")
    said, _, rows = rows_of(source, tmp_path, columns=["reward=net"])
    assert rows.reward.tolist() == [1, 2] and "not read: reward" in said


def listed_columns(rng, names):
    """Three episodes of 2, 1 and 3 steps as lists."""
    lengths = [2, 1, 3]
    columns = [[rng.integers(0, 4, n).tolist() for n in lengths], [rng.integers(0, 2, n).tolist() for n in lengths]]
    columns += [[rng.random(n).tolist() for n in lengths], [[False] * (n - 1) + [True] for n in lengths]]
    return dict(zip(names, columns))


@pytest.mark.parametrize("named", [{}, {"observation": "states", "reward": "gains", "episode_id": "stay"}])
def test_a_row_of_lists_is_an_episode(named, tmp_path):
    names = [named.get(x, f"{x}s") for x in ("observation", "action", "reward")] + ["dones"]
    lists = listed_columns(np.random.default_rng(0), names)
    pq.write_table(pa.table(lists | {"stay": [7, 5, 6], "note": ["a"] * 3}), tmp_path / "log.parquet")
    columns = [f"{ours}={theirs}" for ours, theirs in named.items()]
    said, _, rows = rows_of(tmp_path / "log.parquet", tmp_path, columns=columns)
    assert "one row per episode" in said and "not read:" in said and "note" in said
    assert rows.t.tolist() == [0, 1, 0, 0, 1, 2] and rows.terminal.tolist() == [0, 1, 1, 0, 0, 1]
    assert rows.episode_id.tolist() == ([7, 7, 5, 6, 6, 6] if named else [0, 0, 1, 2, 2, 2])
    for ours, name in zip(("observation", "action", "reward"), names):
        np.testing.assert_allclose(getattr(rows, ours), np.concatenate(lists[name]))


def test_lists_of_vectors_and_lists_that_differ_in_length(tmp_path):
    lists = listed_columns(np.random.default_rng(0), ("observations", "actions", "rewards", "dones"))
    vectors = [[[float(x), 1.0 - x] for x in episode] for episode in lists["observations"]]
    pq.write_table(pa.table(lists | {"observations": vectors}), tmp_path / "vectors.parquet")
    assert describe(tmp_path / "vectors.parquet")["codings"]["observation"] == "bins"
    singles = [[[x] for x in episode] for episode in lists["actions"]]
    pq.write_table(pa.table(lists | {"actions": singles}), tmp_path / "singles.parquet")
    assert describe(tmp_path / "singles.parquet")["codings"]["action"] == "integers"
    lists["rewards"][1] = [1.0, 2.0]
    pq.write_table(pa.table(lists), tmp_path / "short.parquet")
    with pytest.raises(UserError, match="row 2: 2 rewards beside 1 observations"):
        describe(tmp_path / "short.parquet")
    pq.write_table(pa.table(lists | {"rewards": [None, *lists["rewards"][1:]]}), tmp_path / "none.parquet")
    with pytest.raises(UserError, match="row 1 has no rewards"):
        describe(tmp_path / "none.parquet")
