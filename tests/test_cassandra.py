"""Cassandra's files: dialects, refusals, the exact round trip, and whatever may be in a file."""

import pathlib
import warnings

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from icdm.errors import UserError
from icdm.families.cassandra import NamedPOMDP, format_pomdp, parse_pomdp, read_pomdp, write_pomdp
from icdm.problems.pomdp import make_pomdp

MODELS = pathlib.Path(__file__).parent.parent.parent / "shared" / "models"

DOOR = """# a door that may be locked
discount: 0.9
values: reward
states: open locked
actions: push wait
observations: moves stuck

T: push
identity
T: wait : open
0.5 0.5
T: wait : locked : open 0.25
T: wait : locked : locked 0.75
O: * : open : moves 0.8
O: * : open : stuck 0.2
O: wait
uniform
O: push : locked
0.1 0.9
R: * : * : * : * -1
R: push : open : * : * 5
R: wait : open : locked : stuck 8
"""


def parsed(text, **fields):
    return parse_pomdp(text, **{"horizon": 3, **fields})


def test_every_form_of_a_statement():
    door = parsed(DOOR)
    problem = door.problem
    assert (door.states, door.actions, door.observations) == (
        ("open", "locked"),
        ("push", "wait"),
        ("moves", "stuck"),
    )
    assert problem.mdp.transition.tolist() == [[[1, 0], [0, 1]], [[0.5, 0.5], [0.25, 0.75]]]
    assert problem.emission.tolist() == [[[0.8, 0.2], [0.1, 0.9]], [[0.5, 0.5], [0.5, 0.5]]]
    # waiting at the open door: -1, but 8 in the quarter of cases where it locks and seems stuck
    assert np.allclose(problem.mdp.reward, [[5, 0.75 * -1 + 0.25 * 8], [-1, -1]])
    assert problem.mdp.initial.tolist() == [0.5, 0.5]
    assert problem.discount == 0.9 and problem.horizon == 3


@pytest.mark.parametrize(
    "start, expected",
    [
        ("start: 0.25 0.75", [0.25, 0.75]),
        ("start: uniform", [0.5, 0.5]),
        ("start: locked", [0, 1]),
        ("start: 1", [0, 1]),
        ("start: open locked", [0.5, 0.5]),
        ("start include: open", [1, 0]),
        ("start exclude: open", [0, 1]),
    ],
)
def test_starts(start, expected):
    assert parsed(DOOR.replace("\nT: push\n", f"\n{start}\nT: push\n", 1)).problem.mdp.initial.tolist() == expected


def test_dialects():
    cost = parsed(DOOR.replace("values: reward", "values: cost"))
    assert np.array_equal(cost.problem.mdp.reward, -parsed(DOOR).problem.mdp.reward)
    reset = parsed(DOOR.replace("T: push\nidentity", "start: locked\nT: push : * reset"))
    assert reset.problem.mdp.transition[0].tolist() == [[0, 1], [0, 1]]
    by_number = DOOR.replace("states: open locked", "states: 2").replace("open", "0").replace("locked", "1")
    assert np.array_equal(parsed(by_number).problem.mdp.reward, parsed(DOOR).problem.mdp.reward)
    matrix = DOOR + "R: push : locked\n1 2\n3 4\nR: push : open : open\n6 7\n"
    assert parsed(matrix).problem.mdp.reward[:, 0].tolist() == pytest.approx([0.8 * 6 + 0.2 * 7, 0.1 * 3 + 0.9 * 4])
    assert parsed(DOOR, discount=0.5).problem.discount == 0.5


def test_rounded_rows_are_renormalised_with_a_warning_and_worse_ones_refused():
    with pytest.warns(UserWarning, match="text:11: 1 row of T renormalised"):
        row = parsed(DOOR.replace("0.5 0.5", "0.5 0.50005")).problem.mdp.transition[1, 0]
    assert row.sum() == pytest.approx(1, abs=1e-15)
    with pytest.raises(UserError, match="^text:11: T: wait : open sums to 1.001, not 1$"):
        parsed(DOOR.replace("0.5 0.5", "0.5 0.501"))
    with pytest.raises(UserError, match="^text:19: O: push : locked sums to 0.9, not 1$"):
        parsed(DOOR.replace("0.1 0.9", "0 0.9"))


@pytest.mark.parametrize(
    "old, new, message",
    [
        ("discount: 0.9\n", "", "the file gives no discount"),
        ("discount: 0.9", "discount: 1.5", "text:2: discount 1.5"),
        ("discount: 0.9", "discount 0.9", "text:2: a colon is missing"),
        ("values: reward", "values: profit", "text:3: values 'profit'"),
        ("states: open locked", "states: open open", "text:4: states: 'open' is named twice"),
        ("states: open locked", "states: 0", "text:4: states: 0 is no usable count"),
        ("states: open locked", "states: 99999999999999", "no usable count"),
        ("states: open locked\n", "", "the states are not declared yet"),
        ("T: push\nidentity", "T: pull\nidentity", "text:8: 'pull' is not one of the 2 actions"),
        ("T: push\nidentity", "T: 7\nidentity", "text:8: '7' is not one of the 2 actions"),
        ("identity", "identical", "text:9: 'identical' where number 1 of 4 should stand"),
        ("open 0.25", "open -0.25", "text:12: -0.25 is no probability"),
        ("open 0.25", "open nan", "'nan' where number 1 of 1"),
        ("open 0.25", "open 1e999", "'1e999' where number 1 of 1"),
        ("R: * : * : * : * -1", "R: * -1", "R needs at least an action and a state"),
        ("R: * : * : * : * -1", "Q: * : * : * : * -1", "text:20: 'Q' begins no statement"),
        ("* 5\n", "* 5 6\n", "text:21: '6' begins no statement"),
        ("stuck 8\n", "stuck\n", "text:22: the file ends where number 1 of 1 should stand"),
        ("\nT: push\n", "\nstart: 0.5 0.4 0.1\nT: push\n", "start gives 3 values for 2 states"),
        ("\nT: push\n", "\nstart: 0.5 0.4\nT: push\n", "text:8: start sums to 0.9, not 1"),
        ("\nT: push\n", "\nstart exclude: open locked\nT: push\n", "start excludes every state"),
    ],
)
def test_refusals_name_the_line(old, new, message):
    assert old in DOOR
    with pytest.raises(UserError, match=message):
        parsed(DOOR.replace(old, new, 1))


def test_files_that_cannot_be_read(tmp_path):
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00discount")
    for path in (tmp_path, tmp_path / "none", tmp_path / "binary", "a\0b"):
        with pytest.raises(UserError, match="cannot be read"):
            read_pomdp(path, horizon=3)
    with pytest.raises(UserError, match="cannot be written"):
        write_pomdp(parsed(DOOR), tmp_path / "none" / "file")


def same(a: NamedPOMDP, b: NamedPOMDP) -> bool:
    leaves = zip(jax.tree.leaves(a.problem), jax.tree.leaves(b.problem), strict=True)
    return (a.states, a.actions, a.observations) == (b.states, b.actions, b.observations) and all(
        np.array_equal(x, y) for x, y in leaves
    )


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 5), st.integers(1, 3), st.integers(1, 4))
def test_the_round_trip_is_exact(seed, n_states, n_actions, n_observations):
    rng = np.random.default_rng(seed)
    problem = make_pomdp(
        rng.dirichlet(np.ones(n_states), (n_actions, n_states)),
        rng.normal(size=(n_states, n_actions)) * 10.0 ** rng.integers(-8, 8),
        rng.dirichlet(np.ones(n_states)),
        rng.dirichlet(np.ones(n_observations), (n_actions, n_states)),
        discount=rng.uniform(0.1, 1),
        horizon=3,
    )
    sizes = {"s": n_states, "a": n_actions, "o": n_observations}
    named = NamedPOMDP(problem, *(tuple(f"{letter}{i}" for i in range(n)) for letter, n in sizes.items()))
    assert same(parsed(format_pomdp(named)), named)


def test_what_the_format_cannot_say_is_refused():
    problem = make_pomdp(np.ones((1, 1, 1)), [[1]], [1], np.ones((1, 1, 1)), discount=1, horizon=1, shows_reward=True)
    with pytest.raises(UserError, match="observed rewards"):
        format_pomdp(NamedPOMDP(problem, ("0",), ("0",), ("0",)))


EXTRA = [":", "*", "uniform", "reset", "start", "exclude", "include", "1e9", "-1", "#", "\n", "7"]
WORDS = st.sampled_from(DOOR.split() + EXTRA)


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_no_text_brings_the_reader_down(data):
    words = DOOR.replace("\n", " \n ").split(" ")
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(words)))
        new = data.draw(st.lists(st.one_of(WORDS, st.text(max_size=5)), max_size=3))
        words[at : at + data.draw(st.integers(0, 3))] = new
    with np.errstate(all="ignore"):
        survives(" ".join(words))


@settings(max_examples=200, deadline=None)
@given(st.one_of(st.text(), st.lists(WORDS).map(" ".join)))
def test_nor_does_any_text_at_all(text):
    survives(text)


def survives(text):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*renormalised")
        try:
            problem = parsed(text).problem
        except UserError as error:
            assert str(error).startswith("text:") and "\n" not in str(error)
        else:
            assert np.allclose(problem.mdp.transition.sum(-1), 1) and np.allclose(problem.emission.sum(-1), 1)


@pytest.mark.skipif(not MODELS.is_dir(), reason="the classic models are not here")
@pytest.mark.filterwarnings("ignore:.*renormalised")
@pytest.mark.parametrize(
    "name, shape", [("tiger", (3, 2, 2)), ("1d", (2, 4, 2)), ("4x3", (4, 11, 6)), ("cheese", (4, 11, 7))]
)
def test_classic_models(name, shape):
    named = read_pomdp(MODELS / f"{name}.pomdp", horizon=3)
    assert named.problem.emission.shape == shape
    assert same(parsed(format_pomdp(named)), named)
