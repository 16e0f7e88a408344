"""The claims' own machinery, at small size: population losses, TD equivalence, decisions, trajectories."""

import ast
import json
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from icdm.models.linear_attention import LinearAttention, regression_prediction
from theory import ledger
from theory.claims import control_exact, lsa_optimum, sample_complexity, td_emerges, td_exact, trajectory_data
from theory.claims.suboptimality import measure
from theory.configs import depth, full, quick
from theory.linear import decisions, laws
from theory.linear.closed_forms import gram_moment
from theory.linear.markov_rewards import sample_chain, stationary, walk
from theory.linear.prompts import sample_prompts

THEORY = pathlib.Path(__file__).parent.parent / "theory"


def small(name, **changes):
    config = quick.get_config()[name]
    config.update(changes)
    return config


@pytest.mark.parametrize("features", ["gaussian", "simplex"])
def test_population_loss_against_the_layer_on_sampled_prompts(features):
    config = small("lsa_optimum")
    law, tasks = lsa_optimum.feature_laws(config)[features], lsa_optimum.task_laws(config)["empirical"]
    quadratic, linear = lsa_optimum.population_moments(law, tasks, 0.5, config.n)
    rng = np.random.default_rng(0)
    p, w = 0.5 * rng.normal(size=4), 0.5 * rng.normal(size=(4, 3))
    r = np.einsum("a,bc->abc", p, w).ravel()
    exact = r @ quadratic @ r - 2 * linear @ r + np.trace(tasks.second @ law.second)
    layer = LinearAttention(
        *(jnp.asarray(m, jnp.float32) for m in (np.pad(p[None], ((3, 0), (0, 0))), np.pad(w, ((0, 0), (0, 1)))))
    )
    x, y, query, target = sample_prompts(law, tasks, law, 0.5, jax.random.key(0), 100_000, config.n)
    prediction = jax.jit(jax.vmap(regression_prediction, (None, 0, 0, 0)))(layer, x, y, query)
    errors = np.asarray((prediction - target) ** 2, np.float64)
    assert abs(errors.mean() - exact) <= 4 * errors.std() / np.sqrt(len(errors))


def test_gradient_flow_reaches_the_closed_form_and_tells_the_gaussian_one_apart():
    config = small("lsa_optimum", starts=1)
    wrong, _, lopsided_inert = lsa_optimum.controls(config, lsa_optimum.feature_laws(config))
    assert wrong > 0.05, "the Gaussian form is refused for one-hot features"
    assert lopsided_inert > 0.05, "tasks that are not symmetric use the other blocks"


def test_td_equivalence_and_its_control():
    claim, _ = td_exact.check(small("td_exact", trials=3, layers=10, n=20))
    assert claim.holds
    assert min(claim.control.values()) > 1e-6


def test_fitted_q_layers_and_their_soft_gates():
    config = small("control_exact", trials=3, layers=8)
    data = control_exact.random_contexts(config)
    exact = control_exact.fitted_q(config, data)
    assert np.abs(control_exact.forward(config, data, np.inf) - exact).max() < 1e-12
    soft = [np.abs(control_exact.forward(config, data, beta) - exact).max() for beta in (0.0, 10.0, 1000.0)]
    assert soft[0] > soft[1] > soft[2] > 1e-12
    found, bound = control_exact.softmax_shortfall(config)
    assert (found <= bound * (1 + 1e-9)).all() and (found >= 0.99 * bound).all()


def test_stationary_distribution_of_chains():
    chain = sample_chain(jax.random.key(0), 10, 4)
    d = np.asarray(stationary(chain))
    np.testing.assert_allclose(d @ np.asarray(chain.transition), d, atol=1e-6)
    states = np.asarray(walk(chain, jax.random.key(1), 20_000))
    np.testing.assert_allclose(np.bincount(states, minlength=10) / len(states), d, atol=0.02)


@pytest.mark.slow
def test_training_on_chains_lowers_the_td_loss_and_is_reproducible():
    config = small("td_emerges", processes=40, walks=2, windows=4, checkpoints=2, test_processes=4)
    run = jax.jit(lambda key: td_emerges.train(config, key))
    (layer, step), scores = run(jax.random.key(0))
    again = run(jax.random.key(0))[0][0]
    assert scores["iws"].shape == (3,) and np.isfinite(np.asarray(scores["vd"])).all()
    np.testing.assert_array_equal(layer.value, again.value)
    assert float(step) != 0.1


def test_constructed_td_scores_one_against_itself():
    config = small("td_emerges", test_processes=8)
    step = jnp.float32(1.2)
    learner = (td_emerges.td_layer(step * jnp.eye(config.dimension)), step)
    scores = jax.jit(lambda key: td_emerges.scores(config, learner, key))(jax.random.key(0))
    assert float(scores["iws"]) > 0.999 and float(scores["ss"]) > 0.999 and float(scores["vd"]) < 1e-5


def test_greedy_outcome_against_rollouts():
    config = small("suboptimality", problems=2, states=5, horizon=3)
    problems = decisions.sample_problems(config, 0, 2)
    rng = np.random.default_rng(0)
    q_hat = rng.normal(size=problems.q.shape)
    gap, occupancy = decisions.greedy_outcome(problems, q_hat)
    np.testing.assert_allclose(occupancy.sum(-1), 1, atol=1e-12)
    returns = np.zeros(20_000)
    state = rng.integers(0, 5, len(returns))
    for h in range(3):
        action = q_hat[0, h].argmax(-1)[state]
        returns += problems.reward[0, h, state, action]
        rows = problems.transition[0, h, state, action].cumsum(-1)
        state = np.minimum((rows <= rng.random(len(returns))[:, None]).sum(-1), 4)
    value = problems.q[0, 0].max(-1).mean() - gap[0]
    assert abs(returns.mean() - value) <= 4 * returns.std() / np.sqrt(len(returns))


def test_gap_is_zero_for_the_true_q_under_any_shrinkage_and_under_ties():
    config = small("suboptimality", problems=4)
    problems = decisions.sample_problems(config, 0, 4)
    for q_hat in (problems.q, 0.1 * problems.q, problems.q + 3.0):
        np.testing.assert_allclose(decisions.greedy_outcome(problems, q_hat)[0], 0, atol=1e-12)
    tied = problems._replace(features=np.repeat(problems.features[:, :1], config.actions, axis=1))
    tied = tied._replace(
        transition=np.repeat(problems.transition[..., :1, :], config.actions, -2),
        reward=np.repeat(problems.reward[..., :1], config.actions, -1),
    )
    weights = np.stack([np.linalg.lstsq(tied.cells, q.reshape(-1), rcond=None)[0] for q in backward_q(tied)])
    tied = tied._replace(weights=weights.reshape(tied.weights.shape))
    other = np.random.default_rng(0).normal(size=tied.reward.shape)
    assert (other.argmax(-1) != tied.q.argmax(-1)).mean() > 0.5, "the argmax differs"
    np.testing.assert_allclose(decisions.greedy_outcome(tied, other)[0], 0, atol=1e-10)


def backward_q(problems):
    value, rows = np.zeros(problems.reward[:, 0, :, 0].shape), []
    for h in reversed(range(problems.reward.shape[1])):
        q = problems.reward[:, h] + np.einsum("rsay,ry->rsa", problems.transition[:, h], value)
        value = q.max(-1)
        rows.insert(0, q)
    return np.stack(rows, axis=1).reshape(-1, *q.shape[1:])


def test_bound_holds_and_estimates_are_those_of_explicit_prompts():
    config = small("suboptimality", problems=20)
    problems = decisions.sample_problems(config, 0, 20)
    row = measure(problems, 20, 40, np.random.default_rng(0))
    assert (row["gap"] <= row["bound"]).all() and row["gap"].max() > 0
    u = np.eye(config.dimension)
    many = np.mean([decisions.estimated_weights(problems, u, 50, np.random.default_rng(i)) for i in range(400)], axis=0)
    endless = decisions.estimated_weights(problems, u, np.inf, None)
    np.testing.assert_allclose(many, endless, atol=0.03)


def test_exponents_are_recovered_from_power_laws():
    budgets = np.array([100.0, 200.0, 400.0])
    scales = np.array([[0.01], [1.0], [0.1]])
    gap = np.broadcast_to(scales * budgets**-0.5, (30, 3, 3))
    assert abs(sample_complexity.exponent(budgets, sample_complexity.hardest(gap)) - 2) < 1e-9


def test_lagged_moment_against_enumeration_and_independence():
    law = laws.Finite(np.array([[1.0, 0.0], [0.3, 0.7]]), np.array([0.5, 0.5]))
    sticky = np.array([[0.9, 0.1], [0.1, 0.9]])
    total = np.zeros((2, 2))
    for path in np.ndindex(2, 2, 2):
        share = 0.5 * sticky[path[0], path[1]] * sticky[path[1], path[2]]
        g = sum(np.outer(law.points[c], law.points[c]) for c in path) / 3
        total += share * g @ g
    np.testing.assert_allclose(trajectory_data.lagged_moment(law, sticky, 3), total, atol=1e-14)
    mixed = np.full((2, 2), 0.5)
    np.testing.assert_allclose(trajectory_data.lagged_moment(law, mixed, 3), gram_moment(law, np.eye(2), 3), atol=1e-14)
    assert np.abs(total - gram_moment(law, np.eye(2), 3)).max() > 0.01


def test_full_grid_has_the_same_claims():
    assert set(full.get_config()) == {*quick.get_config(), *depth.get_config()}


@pytest.mark.parametrize("folder", ["claims", "circuits", "linear"])
def test_nothing_that_a_claim_is_made_of_imports_a_claim(folder):
    paths = list((THEORY / folder).glob("*.py"))
    assert len(paths) > 1
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text())):
            imported = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
            if isinstance(
                node, ast.ImportFrom
            ):  # from theory import claims, from theory.claims import x, from . import x
                imported = [f"{node.module}.{name}" for name in imported]
                assert node.level == 0, f"{path}: imports by full names can be checked"
            assert not any(f"{name}.".startswith("theory.claims.") for name in imported), f"{path} imports {imported}"


def test_the_readme_has_the_numbers_of_the_committed_results():
    """Of the models that plan: every slope, and what decides the claims; tables are made from the results."""
    results = [ledger.read(THEORY / f"results/{name}.json") for name in ("planning", "depth")]
    found = {claim.id: claim for claim in sum(results, [])}
    text = (THEORY / "README.md").read_text().replace("**", "")
    text = re.sub(r"\s+", " ", re.sub(r"\b0\.(?=\d)", ".", text))

    def written(claim, name, digits=2, scale=1):
        value, (low, high) = found[claim].measured[name], found[claim].ci95[name]
        numbers = (f"{scale * x + 0.0:.{digits}f}" for x in (value, low, high))
        value, low, high = (re.sub(r"^(-?)0\.", r"\1.", re.sub(r"^-(0\.?0*)$", r"\1", x)) for x in numbers)
        return f"{value} [{low}, {high}]"

    expected = [written("influence_is_bayes", f"slope_{k}") for k in range(4)]
    expected += [written("influence_is_bayes", f"r2_{k}", 3 if k < 2 else 2) for k in range(4)]
    expected += [written("values_are_cached", "r2_0", 3), written("values_are_cached", "share_left_0")]
    places = ("embed", "0_out", "1_out", "2_out")
    expected += [written("values_can_be_swapped", f"slope_at_{place}") for place in places]
    expected += [written("values_can_be_swapped", f"slope_both_{place}") for place in places]
    expected += [written("values_can_be_swapped", f"slope_into_{place}") for place in places[1:]]
    expected += [written("values_can_be_swapped", name) for name in ("slope", "slope_whole")]
    expected += [written("layers_hold_iterates", f"probe_r2_{j}") for j in range(1, 5)]
    expected += [written("layers_hold_iterates", "least_selectivity")]
    expected += [written("logits_by_position", name) for name in ("share_own_state", "partial_r2")]
    expected += [written("logits_by_position", "partial_r2_written_by_3")]
    expected += [
        written("depth_buys_planning", "aic_margin"),
        written("depth_buys_planning", "share_left_1_8_layers", 3),
    ]
    expected += [written("loops_iterate_values", f"error_{loops}_loops_over_8") for loops in (16, 32)]
    shares = json.loads((THEORY / "results/depth_shares.json").read_text())
    for share in (own["fine_tuned"]["planning_share"] for own in shares.values()):
        numbers = (f"{x:.2f}".replace("0.", ".", 1) for x in (share["mean"], *share["ci95"]))
        expected.append("{} [{}, {}]".format(*numbers))
    assert [numbers for numbers in expected if numbers not in text] == []
    of_planning = {"values_are_cached", "values_can_be_swapped", "layers_hold_iterates", "logits_by_position"}
    failing = of_planning | {"depth_buys_planning", "loops_iterate_values", "q_is_decodable"}
    assert {name: claim.verdict for name, claim in found.items()} == {
        **dict.fromkeys(("influence_is_bayes", "logits_are_q", "q_is_used"), "holds"),
        "attention_reads_returns": "undecided",
        **dict.fromkeys(failing, "fails"),
    }
