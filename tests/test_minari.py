"""Minari data sets in both directions; read back by Minari itself where it is installed."""

import itertools
import json
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from commands import ROOT
from recorded_files import GOOD, random_rows, write

from icdm.errors import UserError
from icdm.logs.codings import Bins
from icdm.logs.convert import convert
from icdm.logs.describe import describe
from icdm.logs.table import join, open_table, plain_codings, write_table


@pytest.fixture
def table(tmp_path):
    rows = random_rows(np.random.default_rng(1))
    closed = np.isin(rows.episode_id, rows.episode_id[~rows.acted])
    return write_table(tmp_path / "log.parquet", [rows[closed]], plain_codings(9, 4))


@pytest.mark.parametrize("form", ["hdf5", "arrow"])
def test_round_trip(form, table, tmp_path):
    pytest.importorskip("h5py")
    convert(table.path, tmp_path / "set", minari=form)
    convert(tmp_path / "set", tmp_path / "back.parquet")
    assert pq.read_table(table.path).equals(pq.read_table(tmp_path / "back.parquet"))


@pytest.mark.parametrize("form", ["hdf5", "arrow"])
def test_minari_reads_what_we_write(form, table, tmp_path):
    minari = pytest.importorskip("minari")
    convert(table.path, tmp_path / "set", minari=form)
    found = minari.MinariDataset(tmp_path / "set" / "data")
    rows = next(table.chunks())
    episode = next(found.iterate_episodes([3]))
    ours = rows[np.isin(rows.episode_id, np.unique(rows.episode_id)[3])]
    assert found.total_steps == rows.acted.sum()
    np.testing.assert_array_equal(episode.observations, ours.observation)
    np.testing.assert_array_equal(episode.actions, ours.action[:-1])
    np.testing.assert_array_equal(episode.rewards, ours.reward[:-1])


def test_real_observations_are_binned(tmp_path):
    h5py = pytest.importorskip("h5py")
    data = tmp_path / "set" / "data"
    data.mkdir(parents=True)
    rng = np.random.default_rng(0)
    observations = rng.uniform(-1, 1, (3, 6, 2))
    with h5py.File(data / "main_data.hdf5", "w") as file:
        for i in range(3):
            group = file.create_group(f"episode_{i}")
            group["observations"], group["actions"] = observations[i], rng.integers(0, 3, 5)
            group["rewards"], group["terminations"] = rng.normal(size=5), np.arange(5) == 4
            group["truncations"] = np.zeros(5, bool)
    spaces = {
        "observation_space": {"type": "Box", "shape": [2]},
        "action_space": {"type": "Discrete", "n": 3},
    }
    header = {"total_episodes": 3, "data_format": "hdf5", **{k: json.dumps(v) for k, v in spaces.items()}}
    (data / "metadata.json").write_text(json.dumps(header))
    convert(tmp_path / "set", tmp_path / "log.parquet", bins=8, binning="uniform")
    found = open_table(tmp_path / "log.parquet")
    bins = found.codings["observation"]
    rows = join(list(found.chunks()))
    assert isinstance(bins, Bins) and bins.n == 64 and rows.terminal.sum() == 3
    assert np.abs(bins.decode(rows.observation) - observations.reshape(-1, 2)).max() <= 1.01 / 8


def test_the_numbers_of_a_box_may_be_features(tmp_path):
    observations = np.random.default_rng(0).normal(size=(6, 20))
    box = {"observation_space": {"type": "Box", "shape": [20]}}
    source = minari_set(tmp_path / "set", box, observations=observations)
    with pytest.raises(UserError, match="lower --bins, or read .* map observation=observation.0,observation.1"):
        describe(source)
    columns = (f"observation={','.join(f'observation.{i}' for i in range(20))}",)
    found = describe(source, columns=columns)["features"]
    assert [*found] == [f"observation.{i}" for i in range(20)] and not describe(source, columns=columns)["defects"]
    np.testing.assert_allclose([x["max"] for x in found.values()], observations[:6].max(0))
    convert(source, tmp_path / "log.parquet", columns=columns)
    rows = join(list(open_table(tmp_path / "log.parquet").chunks()))
    np.testing.assert_array_equal(rows.features, observations)
    assert rows.acted.tolist() == [True] * 5 + [False]
    two = describe(source, columns=("observation=observation.3,observation.11",))
    assert [*two["features"]] == ["observation.3", "observation.11"]
    with pytest.raises(UserError, match="unknown column of .* 'observation.20'"):
        describe(source, columns=("observation=observation.3,observation.20",))


def test_binned_vectors_are_said_to_be_features_perhaps(tmp_path):
    box = {"observation_space": {"type": "Box", "shape": [2]}}
    said = convert(minari_set(tmp_path / "set", box, observations=np.random.rand(6, 2)), tmp_path / "log.parquet")
    assert (
        "column observation holds vectors, whose numbers may be features (column map observation=observation.0," in said
    )
    pq.write_table(
        pa.table(
            {
                "episode_id": [0, 0],
                "t": [0, 1],
                "observation": [[0.5, 2.0], [1.5, None]],
                "action": [0, 1],
                "reward": [1.0, 0.0],
            }
        ),
        tmp_path / "vectors.parquet",
    )
    found = describe(tmp_path / "vectors.parquet", columns=("observation=observation.0,observation.1",))["features"]
    assert found["observation.0"]["max"] == 1.5 and found["observation.1"]["missing"] == 0.5


def minari_set(directory, spaces, **arrays):
    """A data set of one episode of five steps."""
    h5py = pytest.importorskip("h5py")
    (directory / "data").mkdir(parents=True)
    with h5py.File(directory / "data" / "main_data.hdf5", "w") as file:
        group = file.create_group("episode_0")
        plain = dict(observations=np.arange(6), actions=np.arange(5) % 3, rewards=np.ones(5))
        marks = dict(terminations=np.zeros(5, bool), truncations=np.arange(5) == 4)
        for name, values in (plain | marks | arrays).items():
            group[name] = values
    plain = {f"{name}_space": {"type": "Discrete", "n": 9} for name in ("observation", "action")} | spaces
    header = {"total_episodes": 1, "data_format": "hdf5", **{k: json.dumps(v) for k, v in plain.items()}}
    (directory / "data" / "metadata.json").write_text(json.dumps(header))
    return directory


def test_a_reward_of_minus_1_is_a_reward(tmp_path):
    rewards = np.array([-1, -1, -10, 20, -1])  # Taxi's, as integers
    said = convert(minari_set(tmp_path / "set", {}, rewards=rewards), tmp_path / "log.parquet")
    rows = join(list(open_table(tmp_path / "log.parquet").chunks()))
    assert rows.reward[:-1].tolist() == rewards.tolist() and rows.acted.tolist() == [True] * 5 + [False]
    assert "nothing dropped" in said


def test_a_task_of_more_than_64_bits_is_refused(tmp_path):
    source = minari_set(tmp_path / "set", {})
    h5py = pytest.importorskip("h5py")
    with h5py.File(source / "data" / "main_data.hdf5", "a") as file:
        file["episode_0"].attrs["task_id"] = "9" * 30
    with pytest.raises(UserError, match="task_id or episode_id of episode 0 is no integer of 64 bits"):
        convert(source, tmp_path / "x.parquet")


@pytest.mark.skipif(np.dtype(np.longdouble).itemsize == 8, reason="there are no wider numbers here")
def test_numbers_of_more_than_8_bytes_are_refused(tmp_path):
    source = minari_set(tmp_path / "set", {}, actions=np.array([0, 1, 2, 0, 0], np.longdouble))
    with pytest.raises(UserError, match="actions of episode 0 .* numbers of at most 8 bytes"):
        convert(source, tmp_path / "x.parquet")


def test_an_action_of_minus_1_is_no_absent_action(tmp_path):
    with pytest.raises(UserError, match="row 2, column action: -1 is not an integer from 0"):
        convert(minari_set(tmp_path / "set", {}, actions=np.array([0, -1, 2, 0, 0])), tmp_path / "log.parquet")


def test_vectors_of_actions_are_binned(tmp_path):
    box = {"action_space": {"type": "Box", "shape": [2]}}
    actions = np.random.default_rng(0).uniform(-2, 2, (5, 2))
    source = minari_set(tmp_path / "set", box, actions=actions)
    convert(source, tmp_path / "log.parquet", bins=4, binning="uniform")
    table = open_table(tmp_path / "log.parquet")
    bins, rows = table.codings["action"], join(list(table.chunks()))
    assert bins.n == 16 and np.abs(bins.decode(rows.action[:-1]) - actions).max() <= 0.5 * 1.01
    with pytest.raises(UserError, match="16 bins of 8 numbers each make more than"):
        box = {"observation_space": {"type": "Box", "shape": [8]}}
        convert(minari_set(tmp_path / "wide", box, observations=np.random.rand(6, 8)), tmp_path / "x.parquet")


SPACES = {
    "MultiDiscrete": {"type": "MultiDiscrete", "nvec": [2, 2]},
    "Tuple": {"type": "Tuple", "subspaces": []},
    r"Box of the shape \(2, 2\)": {"type": "Box", "shape": [2, 2]},
}


@pytest.mark.parametrize("what", SPACES)
def test_other_spaces_are_refused(what, tmp_path):
    source = minari_set(tmp_path / "set", {"action_space": SPACES[what]})
    message = f"action_space is {what}: Discrete, and Box of numbers or of vectors, are supported"
    with pytest.raises(UserError, match=message):
        convert(source, tmp_path / "x.parquet")


@pytest.mark.parametrize("content", ["[]", "{}", '{"total_episodes": "many"}', '{"total_episodes": 1, "codings": 3}'])
def test_damaged_metadata_of_minari_is_named(content, tmp_path):
    source = minari_set(tmp_path / "set", {})
    (source / "data" / "metadata.json").write_text(content)
    with pytest.raises(UserError, match="metadata.json is missing or damaged|is not given: Discrete"):
        convert(source, tmp_path / "x.parquet")


@pytest.mark.skipif(sys.platform != "linux", reason="memory is limited on Linux only")
def test_hdf5_may_not_ask_for_what_a_damaged_file_claims(table, tmp_path):
    """The names of a group are in a heap, whose length follows its signature; HDF5 would ask for as much."""
    pytest.importorskip("h5py")
    convert(table.path, tmp_path / "set", minari="hdf5")
    file = tmp_path / "set" / "data" / "main_data.hdf5"
    content = file.read_bytes()
    length = content.index(b"HEAP") + 8
    file.write_bytes(content[:length] + (2**32 - 1).to_bytes(8, "little") + content[length + 8 :])
    program = """if True:
        import pathlib, sys
        from icdm.errors import UserError
        from icdm.logs.minari import reader
        try:
            list(reader(pathlib.Path(sys.argv[1]))())
        except UserError as error:
            print(error)
        print(*(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmPeak")))
    """
    done = subprocess.run([sys.executable, "-c", program, tmp_path / "set"], cwd=ROOT, capture_output=True, text=True)
    said, kibibytes = done.stdout.splitlines()
    assert "main_data.hdf5 cannot be read" in said and int(kibibytes) < 3 * 2**20, done


def test_episodes_of_other_vectors_or_numbers_are_sorted_or_refused(tmp_path):
    h5py = pytest.importorskip("h5py")
    data = tmp_path / "set" / "data"
    data.mkdir(parents=True)
    spaces = {"observation_space": {"type": "Box", "shape": [2]}, "action_space": {"type": "Discrete", "n": 3}}
    header = {"total_episodes": 2} | {name: json.dumps(space) for name, space in spaces.items()}
    (data / "metadata.json").write_text(json.dumps(header))
    for width, kind, sort in itertools.product((2, 3), (np.int64, np.float32), (False, True)):
        with h5py.File(data / "main_data.hdf5", "w") as file:
            for i in range(2):
                group = file.create_group(f"episode_{i}")
                group["observations"] = np.arange(6 * (2 if i else width)).reshape(6, -1).astype(kind if i else float)
                group["actions"], group["rewards"] = np.arange(5) % 3, np.ones(5)
                group["terminations"] = group["truncations"] = np.zeros(5, bool)
        if width == 2:
            assert describe(tmp_path / "set", sort=sort)["steps"] == 10
            continue
        with pytest.raises(UserError, match="vectors of column observation differ|changes from one part"):
            describe(tmp_path / "set", sort=sort)


def test_words_survive(tmp_path):
    pytest.importorskip("h5py")
    closed = GOOD.replace("A,e1,1,high,down,1,true\n", "A,e1,1,high,down,1,true\nA,e1,2,low,,,false\n")
    convert(write(tmp_path / "log.csv", closed), tmp_path / "log.parquet")
    convert(tmp_path / "log.parquet", tmp_path / "set")
    convert(tmp_path / "set", tmp_path / "back.parquet")
    actions = open_table(tmp_path / "back.parquet").codings["action"].words
    assert actions == ("down", "up")


def test_what_minari_cannot_hold_is_refused(tmp_path):
    pytest.importorskip("h5py")
    convert(write(tmp_path / "log.csv", GOOD), tmp_path / "log.parquet")
    with pytest.raises(UserError, match="lacks the observation after its last step"):
        convert(tmp_path / "log.parquet", tmp_path / "set")
    assert not list(tmp_path.glob("set*"))
    (tmp_path / "other").mkdir()
    with pytest.raises(UserError, match="no Minari data set"):
        convert(tmp_path / "other", tmp_path / "x.parquet")
