"""Observations of several features: their numbers, their states, and the way from a log of them to a decision."""

import csv
import json

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.configs import log as log_config
from experiments.experiment import run
from icdm.cli import main
from icdm.errors import UserError
from icdm.logs.codings import Features
from icdm.logs.convert import convert
from icdm.logs.describe import describe
from icdm.logs.features import Encoder, fit_encoder, read_encoder, values_of
from icdm.logs.log import log_of
from icdm.logs.sequences import as_one_episode, assemble
from icdm.logs.table import open_table
from icdm.problems.spaces import Encoded
from icdm.runs.decide import decide
from icdm.runs.decider import Decider
from icdm.runs.ope import ope
from icdm.runs.run import Run
from icdm.runs.sizes import with_sizes_of_data
from icdm.trajectories.layouts import make_layout
from icdm.trajectories.layouts.observations import Bins
from icdm.trajectories.prompt import encode
from icdm.trajectories.trajectory import NOTHING, Step, Trajectories

ONE = Features(("x",), (None,))
real = st.floats(-1e6, 1e6, allow_subnormal=False)
edges = st.lists(real, min_size=2, max_size=9, unique=True).map(sorted).filter(lambda e: min(np.diff(e)) > 1e-6)


def encoder_of(own_edges, n=None):
    return Encoder(("x",), (None,), (tuple(own_edges),), (0.0,), (1.0,), n or len(own_edges), ((0.0,),))


@given(edges, real, real)
def test_numbers_rise_with_what_they_stand_for(own_edges, x, y):
    low, high = encoder_of(own_edges).encoded(np.array([[min(x, y)], [max(x, y)]]))
    assert (low <= high).all() and Encoded((len(low),)).contains([low, high]).all()


@given(edges, st.integers(0, 8))
def test_at_an_edge_so_many_numbers_are_one_and_the_others_nothing(own_edges, i):
    i = min(i, len(own_edges) - 1)
    found = encoder_of(own_edges).encoded(np.array([[own_edges[i]]]))[0]
    assert found.tolist() == [1.0] * i + [0.0] * (len(own_edges) - i)


@given(edges, real, st.integers(0, 2**32 - 1))
def test_a_linear_map_is_any_function_that_is_linear_between_the_edges(own_edges, x, seed):
    value_at = np.random.default_rng(seed).normal(size=len(own_edges))
    number = encoder_of(own_edges).encoded(np.array([[x]]))[0]
    found = value_at[0] + np.diff(value_at) @ number[:-1]
    assert found == pytest.approx(np.interp(x, own_edges, value_at), abs=1e-4)


@given(edges, st.integers(0, 4))
def test_what_is_missing_is_a_flag_and_nothing_else(own_edges, more):
    encoder = encoder_of(own_edges, len(own_edges) + more)
    missing, there = encoder.encoded(np.array([[np.nan], [own_edges[0]]]))
    assert missing.tolist() == [0.0] * (encoder.numbers - 1) + [1.0] and there[-1] == 0
    assert not encoder.outside(np.array([[np.nan]])).any()


@given(st.lists(real, min_size=1, max_size=40), st.integers(2, 8))
def test_every_value_that_was_fitted_lies_inside_and_others_do_not(values, n):
    value_IF = np.array(values)[:, None]
    encoder = fit_encoder(ONE, value_IF, n, 3)
    assert len(encoder.edges[0]) <= n and encoder.n <= 3 and encoder.numbers == n
    assert not encoder.outside(value_IF).any() and encoder.remarks(value_IF) == []
    beyond = np.array([[max(values) + 1], [min(values) - 1]])
    assert encoder.outside(beyond).all() and "in 2 of 2 rows" in encoder.remarks(beyond)[0]
    assert set(encoder.states(value_IF)) <= set(range(encoder.n))


def test_words_are_ones_at_their_places():
    coding = Features(("ward", "x"), (("A", "B"), None))
    encoder = fit_encoder(coding, np.array([[0, 1.0], [1, 2.0], [np.nan, 3.0]]), 2, 2)
    found = encoder.encoded(np.array([[1, 2.0], [np.nan, np.nan]]))
    assert found.tolist() == [[0, 1, 0, 0.5, 0], [0, 0, 1, 0, 1]]
    assert Encoder.from_json(json.loads(json.dumps(encoder.as_json()))) == encoder


def test_groups_that_lie_apart_are_states():
    rng = np.random.default_rng(0)
    group = rng.integers(0, 3, 300)
    value_IF = np.array([[0.0, 0], [10, 0], [0, 10]])[group] + 0.1 * rng.normal(size=(300, 2))
    value_IF[:5, 1] = np.nan
    encoder = fit_encoder(Features(("x", "y"), (None, None)), value_IF, 16, 3)
    state = encoder.states(value_IF)[5:]
    assert encoder.n == 3 and all(len(set(state[group[5:] == g])) == 1 for g in range(3)) and len(set(state)) == 3


def test_a_feature_that_was_never_measured_says_nothing():
    encoder = fit_encoder(ONE, np.full((4, 1), np.nan), 4, 5)
    assert encoder.n == 1 and encoder.encoded(np.array([[3.0]]))[0].tolist() == [0, 0, 0, 0]
    assert "saw, no value: 3" in encoder.remarks(np.array([[3.0]]))[0]


def test_damaged_files_of_encoders_are_refused(tmp_path):
    content = encoder_of([0.0, 1.0]).as_json()
    for broken in (content | {"edges": [[1.0, 0.0]]}, content | {"centers": []}, {"kind": "features"}):
        (tmp_path / "features.json").write_text(json.dumps(broken))
        with pytest.raises(UserError, match="features.json is damaged"):
            read_encoder(tmp_path)


class Family:
    n_actions, horizon, reward_range, observation_space = 2, 3, (0.0, 1.0), Encoded((1, 1))


def two_episodes():
    """Two features of one number each; the second episode is absent."""
    seen = np.array([[[[0.1, 1.0], [0.2, 0.0], [0.3, 0.5], [0.4, 1.0]], [[NOTHING] * 2] * 4]], np.float32)
    valid = np.array([[[True, True, True], [False] * 3]])
    return Trajectories(seen, np.array([[[1, 0, 1], [0] * 3]]), np.array([[[0.5, 1, 0], [0] * 3]]), valid)


@pytest.mark.parametrize("name", ["transition", "interleaved"])
def test_vectors_are_written_the_same_in_training_and_acting(name):
    layout, episodes = make_layout(name, Family, reward_bins=2, marks_end=True), two_episodes()
    tokens = encode(layout, episodes).tokens
    assert not tokens.valid[0, 4 * layout.positions :].any()  # what is absent does not exist
    nothing = jnp.zeros(1, jnp.int32)
    before = Step(layout.shown.nothing(1), nothing, jnp.zeros(1), layout.shown.nothing(1))
    for t in range(4):
        now = jnp.asarray(episodes.observation[:, 0, t])
        one = layout.append(jnp.full(1, t), before._replace(arrival=now), now)
        own = slice(t * layout.positions, (t + 1) * layout.positions)
        jax.tree.map(lambda acting, training: np.testing.assert_array_equal(acting, training[:, own]), one, tokens)
        if t < 3:
            before = Step(now, *(jnp.asarray(x)[:, 0, t] for x in (episodes.action, episodes.reward)), now)


def test_vectors_enter_the_position_of_a_transition_as_numbers():
    layout = make_layout("transition", Family, reward_bins=2, marks_end=True)
    tokens = encode(layout, two_episodes()).tokens
    assert (layout.numbers, layout.components, layout.n_observations) == (5, 2, 1)
    np.testing.assert_allclose(tokens.number[0, 0], [0, 0, 0, 0.1, 1.0])
    np.testing.assert_allclose(tokens.number[0, 1], [0.5, 0.1, 1.0, 0.2, 0.0])


def test_every_feature_has_a_token_of_its_own_in_the_interleaved_layout():
    layout = make_layout("interleaved", Family, reward_bins=2, marks_end=True)
    prompt = encode(layout, two_episodes())
    mark, x, y, a, r = 0, 1, 3, 5, 7
    steps = [[NOTHING, mark, x + 1, y + 1], [a + 1, r + 0, x + 1, y + 0], [a + 0, r + 1, x + 1, y + 1]]
    np.testing.assert_array_equal(prompt.tokens.id[0, :12, 0], np.concatenate(steps))
    np.testing.assert_array_equal(prompt.acting[0], [3, 7, 11, 15])  # at the last feature of each step
    assert (layout.positions, layout.size) == (2 + 2, 9)


whole = st.integers(-1000, 1000).map(float)


@settings(max_examples=30)
@given(st.lists(whole, min_size=2, max_size=9, unique=True).map(sorted), whole, st.integers(0, 3))
def test_a_token_says_between_which_edges_a_number_lies(own_edges, x, more):
    encoder = encoder_of(own_edges, len(own_edges) + more)
    number_IR = encoder.encoded(np.array([[x], [np.nan]]))
    there, missing = (int(Bins(encoder.widths).ids(jnp.asarray(row), slice(0, 99))[0]) for row in number_IR)
    assert there == min(np.searchsorted(own_edges, x), len(own_edges) - 1)
    assert missing == encoder.numbers > there


def test_every_word_has_a_token_of_its_own():
    encoder = fit_encoder(Features(("ward",), (("A", "B"),)), np.array([[0.0], [1.0], [np.nan]]), 2, 1)
    number_IR = jnp.asarray(encoder.encoded(np.array([[0.0], [1.0], [np.nan]])))
    assert Bins(encoder.widths).ids(number_IR, slice(5, 9))[0].tolist() == [6, 7, 8]


COLUMNS = ["observation=HR,lactate,ward", "action=dose", "reward=gain", "t=hour", "episode_id=stay"]
T = 3


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    """Doses by chance: `some` pays 2 where heart rate and lactate are high, `none` where they are low, the other costs
    1. Either measurement may be missing; the ward means nothing."""
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("log") / "log.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["stay", "hour", "HR", "lactate", "ward", "dose", "gain", "nurse"])
        for stay in range(240):
            for hour in range(T):
                ill, dose = rng.random() < 0.5, rng.choice(["low", "high"])
                rate, lactate = (
                    round(rng.normal(120 if ill else 70, 8)),
                    round(rng.lognormal(1.5 if ill else 0, 0.2), 2),
                )
                shown = [
                    "NA" if rng.random() < 0.1 else rate,
                    "" if rng.random() < 0.2 else lactate,
                    rng.choice([*"AB"]),
                ]
                writer.writerow([stay, hour, *shown, dose, 2 if (dose == "high") == ill else -1, "x"])
    return path


@pytest.fixture(scope="module")
def trained(log, tmp_path_factory):
    c = log_config.get_config()
    c.data, c.columns = str(log), " ".join(COLUMNS)
    c.model.update(width=16, layers=1, heads=2, kv_heads=2, hidden=32)
    c.features.update(edges=16, states=8)
    c.fine_tune.update(steps=60, batch=16, learning_rate=1e-2, warmup=5)
    workdir = tmp_path_factory.mktemp("run")
    return c, workdir, run(c, workdir)


def test_features_are_described_and_converted(log, tmp_path, capsys):
    main(["describe", str(log), "--columns", *COLUMNS])
    said = capsys.readouterr().out
    assert "defects: none" in said and "not read: nurse" in said and "lactate: 0." in said and "coverage" not in said
    found = describe(log, columns=tuple(COLUMNS))["features"]
    assert found["HR"]["missing"] == pytest.approx(0.1, abs=0.04) and 40 < found["HR"]["min"] < found["HR"]["max"] < 150
    assert sum(found["ward"]["words"].values()) == 240 * T and list(found["ward"]["words"]) == ["A", "B"]
    assert "words" in describe(log, columns=tuple(COLUMNS), words=("HR",))["features"]["HR"]
    assert "3 features, 2 actions" in convert(log, tmp_path / "log.parquet", columns=tuple(COLUMNS))
    assert describe(tmp_path / "log.parquet")["features"] == found
    convert(tmp_path / "log.parquet", tmp_path / "back.csv")
    again = describe(tmp_path / "back.csv", columns=("observation=HR,lactate,ward",))
    assert again["features"] == found and again["actions"] == describe(log, columns=tuple(COLUMNS))["actions"]
    with pytest.raises(UserError, match="observations have several features: write .parquet or .csv"):
        convert(tmp_path / "log.parquet", tmp_path / "minari")


def test_features_may_be_lists_of_steps(tmp_path):
    seen = {"HR": [[70.0, 71.0], [120.0]], "ward": [["A", "B"], ["A"]]}
    episodes = seen | {"dose": [[0, 1], [1]], "gain": [[1.0, 0.0], [2.0]]}
    pq.write_table(pa.table(episodes), tmp_path / "log.parquet")
    found = describe(tmp_path / "log.parquet", columns=("observation=HR,ward", "action=dose", "reward=gain"))
    assert found["episodes"] == 2 and found["features"]["HR"]["max"] == 120
    assert found["features"]["ward"]["words"] == {"A": 2, "B": 1}


@pytest.mark.parametrize(
    "cell,said",
    [
        ("70,fast,A", "row 1, column lactate: 'fast' is not a number .*--words lactate"),
        ("1e999,1,A", "row 1, column HR: inf is not a finite number"),
    ],
)
def test_cells_that_are_no_numbers_are_named(cell, said, log, tmp_path):
    lines = log.read_text().splitlines()
    lines[1] = f"0,0,{cell},high,2,x"
    (tmp_path / "log.csv").write_text("\n".join(lines) + "\n")
    with pytest.raises(UserError, match=said):
        convert(tmp_path / "log.csv", tmp_path / "log.parquet", columns=tuple(COLUMNS))


@pytest.mark.parametrize(
    "columns,said",
    [
        ("observation=HR,heart", "unknown column of .* 'heart'"),
        ("observation=HR,HR", "give different names, with commas between"),
        ("observation=HR,", "give different names, with commas between"),
    ],
)
def test_columns_that_are_no_features_are_told(columns, said, log):
    with pytest.raises(UserError, match=said):
        describe(log, columns=(columns, *COLUMNS[1:]))


def test_a_log_of_features_teaches_what_pays(log, trained, tmp_path, capsys):
    _, workdir, results = trained
    policies = {name: policy["value"]["mean"] for name, policy in results["policies"].items()}
    assert policies["fine_tuned_sampled"] > policies["behavior"] + 1
    for observation, dose in (("HR=72,lactate=1,ward=A", "low"), ("HR=,lactate=4.4,ward=B", "high")):
        main(["decide", "--run", str(workdir), "--observation", observation, "--json"])
        found = json.loads(capsys.readouterr().out)
        assert found["action"] == dose and "notes" not in found
    main(["decide", "--run", str(workdir), "--observation", "HR=300,lactate=4,ward=B"])
    assert "note: HR lies outside what training saw, " in capsys.readouterr().out
    header, *lines = log.read_text().splitlines()
    (tmp_path / "context.csv").write_text("\n".join([header, *lines[:T]]) + "\n")
    (tmp_path / "history.csv").write_text(f"{header}\n9,0,70,0.9,A,low,2,x\n9,1,130,99,B,,,x\n")
    found = decide(workdir, tmp_path / "context.csv", history=tmp_path / "history.csv")
    assert (found["action"], found["step"], found["context_episodes"]) == ("high", 1, 1)
    assert "history.csv: lactate lies outside" in found["notes"][0] and "in 1 of 2 rows: 99" in found["notes"][0]


@pytest.mark.parametrize(
    "observation,said",
    [
        ("HR=70,lactate=1", "lacks ward: give ward=, without a value"),
        ("HR=70,lactate=1,word=A", "unknown feature 'word': did you mean 'ward'"),
        ("HR=fast,lactate=1,ward=A", "HR=fast: not a number"),
        ("HR=inf,lactate=1,ward=A", "HR=inf: give a finite number"),
        ("HR=70,lactate=1,ward=C", "unknown value of ward 'C'"),
        ("HR=70,HR=71,lactate=1,ward=A", "HR is there twice"),
        ("70", "'70' is not NAME=VALUE"),
        (None, "--observation HR=VALUE,lactate=VALUE,ward=VALUE"),
    ],
)
def test_observations_that_are_none_are_told(observation, said, trained):
    with pytest.raises(UserError, match=said):
        decide(trained[1], observation=observation)


def test_contexts_are_checked_as_the_log_is(log, trained, tmp_path):
    header, first, *_ = log.read_text().splitlines()
    for text, said in (("0,0,70,1,C,low,2,x", "column ward: not among the 2 words known"), (first, "column ward")):
        head = header if "C" in text else header.replace("ward", "unit")
        (tmp_path / "context.csv").write_text(f"{head}\n{text}\n")
        with pytest.raises(UserError, match=said if "C" in text else "unknown column of .* 'ward'"):
            decide(trained[1], tmp_path / "context.csv", observation="HR=70,lactate=1,ward=A")


def test_a_decider_takes_features_by_name_and_agrees_with_the_command(trained):
    decider = Decider.from_run(trained[1])
    decider.reset(rows=2)
    seen = {"HR": [72.0, np.nan], "lactate": [1.0, 40.0], "ward": ["A", None]}
    decision = decider.act(seen)
    alone = decide(trained[1], observation="HR=72,lactate=1,ward=A")["probabilities"]
    np.testing.assert_allclose(decision.probability[0], list(alone.values()), atol=1e-5)
    (tell,) = decision.outside
    assert tell.startswith("lactate lies outside") and tell.endswith("in 1 of 2 rows: 40")
    decider.observe(decision.action, np.array([2.0, -1.0]))
    assert decider.act(seen | {"ward": "B", "HR": [1, 2]} | {"ward": ["B", "B"]}).probability.shape == (2, 2)
    for bad, said in (
        (np.array([0, 1]), "give each by its name, HR, lactate, ward"),
        (seen | {"HR": [1.0]}, "1, 2, 2 values: give one for each row"),
        (seen | {"HR": [np.inf, 1]}, "HR=inf"),
    ):
        with pytest.raises(UserError, match=said):
            decider.act(bad)


def test_what_is_fitted_comes_from_the_training_part_and_stays_with_the_run(log, trained):
    c, workdir, _ = trained
    encoder, opened = Run.open(workdir).encoder, Run.open(workdir)
    rows = [line.split(",") for line in log.read_text().splitlines()[1:]]
    kept = [row for row in rows if int(row[0]) % 10 != 9]  # every tenth episode is held out
    rates = [float(row[2]) for row in kept if row[2] != "NA"]
    assert (encoder.edges[0][0], encoder.edges[0][-1], encoder.n) == (min(rates), max(rates), 8)
    assert opened.family.widths == encoder.widths == (16, 16, 3) and opened.family.n_states == 8
    before = (workdir / "features.json").read_text()
    assert run(c, workdir)["policies"] and (workdir / "features.json").read_text() == before


def test_features_have_no_form_of_text_and_ids_are_none(trained, tmp_path):
    with pytest.raises(UserError, match="no words for observations of several features"):
        _ = Run.open(trained[1]).settings.phrases
    rows = [f"0,{t},p{t},{t},1,0" for t in range(1500)]
    (tmp_path / "log.csv").write_text("\n".join(["episode_id,t,patient,x,action,reward", *rows]) + "\n")
    with pytest.raises(UserError, match="feature patient has 1500 different words: at most 1000"):
        describe(tmp_path / "log.csv", columns=("observation=patient,x",))


def test_models_read_the_states_where_a_config_says_so(log, tmp_path):
    c = log_config.get_config()
    convert(log, tmp_path / "log.parquet", columns=tuple(COLUMNS))
    c.data = str(tmp_path / "log.parquet")
    c.features.update(edges=0, states=8)
    c.model.update(width=16, layers=1, heads=2, kv_heads=2, hidden=16)
    c.fine_tune.update(steps=2, batch=8)
    sized = with_sizes_of_data(c)
    assert sized["problem"]["states"] == 8 and sized["problem"]["widths"] == []
    run(c, tmp_path / "run")
    opened = Run.open(tmp_path / "run")
    assert opened.layout.numbers == 1 and opened.layout.n_observations == 9
    assert decide(tmp_path / "run", observation="HR=72,lactate=1,ward=A")["probabilities"].keys() == {"low", "high"}
    c.features.edges = 1
    with pytest.raises(UserError, match="features.edges 1: give 2"):
        run(c, tmp_path / "other")


def test_models_read_a_token_of_each_feature_where_a_config_says_so(log, tmp_path):
    c = log_config.get_config()
    c.data, c.columns, c.layout = str(log), " ".join(COLUMNS), "interleaved"
    c.features.update(edges=6, states=8)
    c.model.update(width=16, layers=1, heads=2, kv_heads=2, hidden=16)
    c.fine_tune.update(steps=60, batch=16, learning_rate=1e-2, warmup=5)
    run(c, tmp_path / "run")
    decider = Decider.from_run(tmp_path / "run")
    assert decider.run.layout.positions == 3 + 2 and decider.run.layout.numbers == 1
    decider.reset(rows=2)
    decision = decider.act({"HR": [72.0, None], "lactate": [1.0, 4.4], "ward": ["A", "B"]})
    assert decision.action.tolist() == [1, 0]  # low, high
    for row, observation in enumerate(("HR=72,lactate=1,ward=A", "HR=,lactate=4.4,ward=B")):
        found = decide(tmp_path / "run", observation=observation)
        assert found["action"] == ("low", "high")[row]
        np.testing.assert_allclose(decision.probability[row], list(found["probabilities"].values()), atol=1e-5)
    c.model.max_length = 20
    with pytest.raises(UserError, match="a sequence takes 40 positions: raise model.max_length, now 20"):
        run(c, tmp_path / "other")


def test_policies_are_valued_from_a_log_of_features(log, trained, tmp_path):
    found = ope(log, "uniform", columns=tuple(COLUMNS))
    low, high = found["estimates"]["dr"]["ci95"]
    assert low < 1.5 < high and any("36 groups of similar observations" in note for note in found["notes"])
    (tmp_path / "policy.csv").write_text("observation,action,probability\n0,low,1\n")
    with pytest.raises(UserError, match="column episode_id is missing: give episode_id, t, .* several features"):
        ope(log, tmp_path / "policy.csv", columns=tuple(COLUMNS))
    lines = log.read_text().splitlines()
    more = [",".join([str(300 + int(line.split(",")[0])), *line.split(",")[1:]]) for line in lines[1:]]
    (tmp_path / "more.csv").write_text("\n".join([*lines, *more]) + "\n")  # another file: all episodes count
    found = ope(tmp_path / "more.csv", str(trained[1]))
    assert found["estimates"]["dr"]["mean"] > 4  # of 6
    assert any("8 groups" in note for note in found["notes"])


def step_file(path, log, p):
    """A policy that gives at every step of the log the dose that pays with probability p, in no particular order."""
    rows = []
    for line in log.read_text().splitlines()[1:]:
        stay, hour, *_, dose, gain, _ = line.split(",")
        right = dose if gain == "2" else {"low": "high", "high": "low"}[dose]
        rows += [f"{stay},{hour},{name},{p if name == right else 1 - p}" for name in ("low", "high")]
    rows = np.random.default_rng(0).permutation(rows)
    path.write_text("\n".join(["episode_id,t,action,probability", *rows, "9999,0,low,1"]) + "\n")
    return path


def test_a_policy_of_features_is_given_step_by_step(log, tmp_path):
    policy = step_file(tmp_path / "policy.csv", log, 0.75)
    found = ope(log, policy, columns=tuple(COLUMNS))
    truth = T * (0.75 * 2 - 0.25)
    for name in ("pdwis", "dr", "wdr"):
        low, high = found["estimates"][name]["ci95"]
        assert abs(found["estimates"][name]["mean"] - truth) <= 1.5 * (high - low), name  # 6 standard errors
    assert any("mean probabilities in each observation" in note for note in found["notes"])
    later = [line.split(",") for line in log.read_text().splitlines()[1:]]
    later = [",".join([stay, str(int(hour) + 7), *rest]) for stay, hour, *rest in later]
    (tmp_path / "log.csv").write_text("\n".join([log.read_text().splitlines()[0], *later]) + "\n")
    with pytest.raises(UserError, match="no probabilities for t 7 of episode 0 of the log"):
        ope(tmp_path / "log.csv", policy, columns=tuple(COLUMNS))
    again = ope(tmp_path / "log.csv", step_file(tmp_path / "later.csv", tmp_path / "log.csv", 0.75), columns=COLUMNS)
    assert again["estimates"] == found["estimates"]


@pytest.mark.parametrize(
    "row,said",
    [
        ("0,0,low,0.5", "row 1, column probability: those of one step are to be from 0 and add up to 1"),
        ("0,0,much,1", "row 1, column action: the log does not have this action"),
        ("0,now,low,1", "row 1, column t: 'now'"),
        ("0,0,low,1", "no probabilities for t 1 of episode 0"),
    ],
)
def test_mistakes_in_a_policy_of_steps_are_told(row, said, log, tmp_path):
    (tmp_path / "policy.csv").write_text(f"episode_id,t,action,probability\n{row}\n")
    with pytest.raises(UserError, match=said):
        ope(log, tmp_path / "policy.csv", columns=tuple(COLUMNS))


def test_episodes_hold_numbers_and_the_log_of_states_codes(log, tmp_path):
    convert(log, tmp_path / "log.parquet", columns=tuple(COLUMNS))
    table = open_table(tmp_path / "log.parquet")
    own = log_of(table.chunks(), table.n_observations)
    encoder = fit_encoder(table.codings["observation"], own.features, 4, 5)
    states = own.with_states(encoder)
    found = assemble(states, np.array([[0, NOTHING]])).trajectories
    assert found.observation.shape == (1, 2, T + 1, encoder.numbers) and found.observation.dtype == np.float32
    np.testing.assert_array_equal(found.observation[0, 0, :T], encoder.encoded(own.features[:T]))
    assert (found.observation[0, 1] == NOTHING).all()
    coded = assemble(states.coded, np.array([[0, NOTHING]])).trajectories.observation
    np.testing.assert_array_equal(coded[0], [[*encoder.states(own.features[:T]), 5], [NOTHING] * (T + 1)])
    single = as_one_episode(
        jax.tree.map(lambda x: x[:, :, :2] if x.ndim > 2 else x, assemble(states, np.array([[0, 1]]))), False
    )
    assert single.trajectories.origin.shape[-1] == encoder.numbers


def test_values_may_be_given_as_words_or_numbers():
    coding = Features(("x", "ward"), (None, ("A", "B")))
    found = values_of(coding, {"ward": "B", "x": "1.5"})
    assert found.tolist() == [[1.5, 1.0]]
    assert np.isnan(values_of(coding, {"ward": "NA", "x": None})).all()
