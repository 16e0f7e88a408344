"""Brackets by trials: exact values inside, published values met, deadlines kept; policies written and evaluated."""

import itertools
import math
import pathlib
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from small_problems import random_pomdp, tiger

from benchmarks.published_pomdps import hallway, heaven_and_hell, rock_sample, shopping
from icdm.errors import TooLarge, UserError
from icdm.families.cassandra import parse_sparse, read_sparse
from icdm.oracles.alpha_policies import evaluate, read_alpha, write_alpha
from icdm.oracles.belief import belief_model
from icdm.oracles.belief_tree import tree_values
from icdm.oracles.first_bounds import Model
from icdm.oracles.trials import Stage, _undominated, bracket
from icdm.problems.sparse import SparsePOMDP

DATA = pathlib.Path(__file__).parent / "data" / "pomdp"
MODELS = pathlib.Path(__file__).parent.parent.parent / "shared" / "models"


def as_sparse(problem, discount=None):
    mdp = problem.mdp
    tables = (
        tuple(sparse.csr_array(np.asarray(rows)) for rows in table) for table in (mdp.transition, problem.emission)
    )
    return SparsePOMDP(*tables, mdp.reward, mdp.initial, float(mdp.discount) if discount is None else discount)


def small(seed, n_states=3, n_actions=2, discount=0.9):
    """A random problem, some of whose probabilities are 0."""
    rng = np.random.default_rng(seed)

    def rows(*shape):
        weight = rng.dirichlet(np.full(shape[-1], 0.5), shape[:-1])
        weight[weight < 0.1] = 0
        return weight / weight.sum(-1, keepdims=True)

    tables = (tuple(map(sparse.csr_array, rows(n_actions, n_states, width))) for width in (n_states, 2))
    return SparsePOMDP(*tables, rng.normal(size=(n_states, n_actions)), rows(n_states), discount)


def brute_force(problem, joint, horizon):
    """Q of an unnormalised belief by recursion over all actions and observations, times its mass, (A,)."""
    q = joint @ problem.reward
    if horizon > 1:
        for a in range(problem.n_actions):
            after = (problem.transition[a].T @ joint) * problem.emission[a].toarray().T
            q[a] += problem.discount * sum(brute_force(problem, one, horizon - 1).max() for one in after)
    return q


def in_seconds(seconds):
    return time.monotonic() + seconds


@settings(max_examples=20)
@given(
    st.integers(0, 10**6), st.integers(1, 4), st.integers(1, 3), st.integers(1, 4), st.sampled_from([0.5, 0.95, 1.0])
)
def test_brackets_hold_the_exact_value(seed, n_states, n_actions, horizon, discount):
    problem = small(seed, n_states, n_actions, discount)
    exact = brute_force(problem, problem.initial, horizon)
    found = bracket(problem, horizon, tolerance=1e-6, deadline=in_seconds(20))
    assert found.lower - 1e-14 <= exact.max() <= found.upper + 1e-14
    assert found.upper - found.lower <= 1e-6 * max(1, abs(found.lower))
    assert exact[found.action] >= exact.max() - 1e-5
    for belief in np.random.default_rng(seed).dirichlet(np.ones(n_states), 5):
        assert (found.vectors @ belief).max() <= brute_force(problem, belief, horizon).max() + 1e-14


@settings(max_examples=10)
@given(st.integers(0, 10**6), st.integers(1, 4))
def test_brackets_of_an_infinite_horizon_hold_the_exact_value(seed, n_states):
    problem = small(seed, n_states, discount=0.2)
    steps = 5
    exact = brute_force(problem, problem.initial, steps).max()
    rest = 0.2**steps / 0.8 * np.abs(problem.reward).max()
    for seconds in (0, 20):  # with the first bounds alone, and with trials
        found = bracket(problem, None, tolerance=1e-7, deadline=in_seconds(seconds))
        assert found.lower <= exact + rest and exact - rest <= found.upper
    assert found.upper - found.lower <= 1e-7 * max(1, abs(found.lower))


def test_first_bounds_are_valid_at_every_belief_and_stage():
    problem = as_sparse(random_pomdp(first_emission=None))
    for deadline in (math.inf, 0.0):  # 0: nothing but the range of the rewards
        blind, informed = Model(problem).first_bounds(4, deadline)
        for stage, belief in itertools.product(range(1, 4), np.random.default_rng(0).dirichlet(np.ones(4), 3)):
            exact = brute_force(problem, belief, stage).max()
            assert (belief @ blind[stage]).max() <= exact <= (belief @ informed[stage]).max()


def test_bounds_from_what_is_new_are_those_from_everything():
    """Points are added and corners lowered between two looks at the same joints."""
    rng = np.random.default_rng(0)
    problem = small(0, n_states=4)
    stage = Stage(*(bounds[0] for bounds in Model(problem).first_bounds(None, math.inf)))
    joint, states = rng.dirichlet(np.ones(4), 6).T * 0.3, np.arange(4)
    known, since = np.full(6, math.inf), 0
    for corner in (None, 2, None):
        for point in [*rng.dirichlet(np.ones(4), 8), *np.eye(4)[[corner] if corner else []]]:
            stage.add_point(point, 0.9 * stage.upper_value(point[:, None], states)[0])
        known, since = np.minimum(known, stage.upper_value(joint, states, since)), stage.n_changes
        np.testing.assert_allclose(known, stage.upper_value(joint, states), rtol=1e-12)


@given(st.integers(0, 10**6), st.integers(1, 80), st.integers(1, 40))
def test_vectors_are_pruned_where_another_is_nowhere_below(seed, n_states, n):
    rng = np.random.default_rng(seed)
    vectors = rng.integers(0, 3, (n_states, n)) + rng.integers(0, 3, n).astype(float)
    kept = _undominated(vectors)
    for j in range(n):
        assert any((vectors[:, i] >= vectors[:, j]).all() for i in kept)
        assert not any((vectors[:, i] >= vectors[:, j]).all() for i in kept if i != j and j in kept)


@pytest.mark.parametrize("discount, value", [(0.75, 1.93343899), (0.95, 19.37136837)])
def test_infinite_tiger(discount, value):
    found = bracket(as_sparse(tiger(discount=discount)), None, tolerance=1e-6, deadline=in_seconds(60))
    assert found.lower - 1e-8 <= value <= found.upper + 1e-8
    assert found.upper - found.lower <= 1e-6 * value


@pytest.mark.slow
def test_infinite_brackets_are_narrower_than_those_of_sweeps():
    """The case that sweeps over all points left at [74.376, 87.62]; SARSOP has [74.38, 77.29] after 10 s."""
    found = bracket(read_sparse(DATA / "cancer.POMDP").problem, None, tolerance=0.03, deadline=in_seconds(60))
    assert found.upper - found.lower <= 0.03 * found.lower
    assert found.lower <= 74.3799 <= found.upper < 77.29


@pytest.mark.slow
@pytest.mark.parametrize(
    "text, inside, widest",
    [
        (heaven_and_hell(4), (4.8007, 4.8008), 1e-3),
        (shopping(3), (145.0, 150.3), 2.0),
        (hallway(), (0.972, 1.219), 0.3),
    ],
)
def test_infinite_brackets_agree_with_those_of_sarsop(text, inside, widest):
    """`inside`: the published value, or what SARSOP has after some 10 s."""
    found = bracket(parse_sparse(text).problem, None, tolerance=1e-6, deadline=in_seconds(30))
    assert found.lower <= inside[1] and inside[0] <= found.upper
    assert found.upper - found.lower <= widest


@pytest.mark.slow
@pytest.mark.skipif(not MODELS.is_dir(), reason="the classic models are not here")
@pytest.mark.filterwarnings("ignore:.*renormalised")
@pytest.mark.parametrize(
    "name, value, width", [("cheese", 3.48620682, 1e-6), ("4x3", 1.88988, 2e-5), ("1d", 1.260345, 1e-6)]
)
def test_infinite_classics(name, value, width):
    problem = read_sparse(MODELS / f"{name}.pomdp").problem
    found = bracket(problem, None, tolerance=width / 2, deadline=in_seconds(120))
    assert found.upper - found.lower <= width
    assert found.lower - width <= value <= found.upper + width


def test_a_deadline_in_the_past_still_gives_a_bracket():
    found = bracket(as_sparse(tiger()), 8, tolerance=1e-9, deadline=in_seconds(-1))
    assert found.lower <= 5.3240207765 <= found.upper and found.n_trials == 0
    with pytest.raises(UserError, match="discount below 1"):
        bracket(as_sparse(tiger(), discount=1.0), None, tolerance=1e-3, deadline=in_seconds(1))
    with pytest.raises(TooLarge, match="decisions to go"):
        bracket(as_sparse(tiger()), 10**9, tolerance=1e-3, deadline=in_seconds(1))


def test_rock_sample_is_solved_from_its_sparse_tables():
    problem = parse_sparse(rock_sample(2, 2)).problem
    found = bracket(problem, None, tolerance=1e-3, deadline=in_seconds(60))
    horizon = tree_values(belief_model(problem.dense(4)), problem.initial).max()
    assert found.upper - found.lower <= 1e-3 * found.lower
    assert horizon <= found.upper and found.lower >= horizon - 1e-3 * found.lower


def test_a_policy_is_worth_at_least_its_lower_bound(tmp_path):
    problem = as_sparse(tiger())
    found = bracket(problem, None, tolerance=1e-4, deadline=in_seconds(60))
    write_alpha(tmp_path / "tiger.alpha", found.vectors, found.actions)
    vectors, actions = read_alpha(tmp_path / "tiger.alpha", 2, 3)
    assert np.array_equal(vectors, found.vectors) and np.array_equal(actions, found.actions)
    lower, upper, action, method = evaluate(problem, vectors, actions, None, tolerance=1e-6, deadline=in_seconds(60))
    assert "exact" in method and action == 0
    assert found.lower - 1e-9 <= upper and lower <= 19.37136838 and upper - lower < 1e-5


def test_policies_have_their_known_values():
    problem = as_sparse(tiger())
    always = {name: (np.zeros((1, 2)), np.array([action])) for name, action in (("listen", 0), ("open", 1))}
    for name, gain in (("listen", -1.0), ("open", -45.0)):
        limits = dict(tolerance=1e-9, deadline=in_seconds(20))
        lower, upper, *_ = evaluate(problem, *always[name], None, **limits)
        assert lower == pytest.approx(gain / 0.05, rel=1e-9) and upper == pytest.approx(gain / 0.05, rel=1e-9)
        lower, upper, *_ = evaluate(problem, *always[name], 3, **limits)
        assert lower == upper == pytest.approx(gain * (1 + 0.95 + 0.95**2))


def test_simulation_agrees_with_the_exact_expectation():
    problem = as_sparse(tiger())
    vectors = np.array([[0.0, 0.0], [-100.0, 10.0], [10.0, -100.0]]) + np.array([[5.0], [0.0], [0.0]])
    limits = dict(deadline=in_seconds(60))
    lower, upper, _, method = evaluate(problem, vectors, np.arange(3), None, tolerance=1e-6, **limits)
    assert "exact" in method
    low, high, _, method = evaluate(problem, vectors, np.arange(3), None, tolerance=0.0, **limits)
    assert "simulated" in method and low - (high - low) < lower and upper < high + (high - low)


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "holds 0 numbers"),
        ("0\n1 2 3\n", "records of an action and 2 values"),
        ("7\n1 2\n", "7 is not one of the actions 0 to 2"),
        ("0\n1 nan\n", "not finite"),
        ("listen\n1 2\n", "numbers only"),
    ],
)
def test_files_that_are_no_policies(tmp_path, text, message):
    (tmp_path / "x.alpha").write_text(text)
    with pytest.raises(UserError, match=message):
        read_alpha(tmp_path / "x.alpha", 2, 3)
