"""Reach against depth, and loops against iterates: each against readers whose answer is known."""

import pathlib

import numpy as np
import pytest

from icdm.errors import UserError
from icdm.runs.run import Run
from icdm.runs.settings import as_json, completed
from theory.circuits import influence, trained
from theory.circuits.regressions import pair_products, slope
from theory.circuits.trained import centred
from theory.claims import depth_buys_planning, loops_iterate_values
from theory.configs import depth, trained_depth

DEPTHS = np.array([1.0, 2.0, 4.0, 8.0])
experiment = trained_depth.get_config


def tiny(layers="2"):
    c = experiment(layers)
    c.horizon = 3
    c.problem.update(layers=3, states=2)
    c.context.update(episodes=4)
    c.model.update(layers=2 if layers == "loops" else int(layers), width=8, hidden=8, heads=1, kv_heads=1)
    c.fine_tune.update(steps=4, pool=16, validation=0.25, validate_every=2, batch=4, log_every=2)
    return c


@pytest.fixture(scope="module")
def rows():
    run = Run(pathlib.Path(), completed(as_json(tiny())))
    return trained.unseen_rows(run, 40, seed=0)


class Planner:
    """A reader that moves as the exact Q with so many rewards to come does, plus noise."""

    def __init__(self, rows, ahead=3, noise=0.0):
        self.rows, self.ahead, self.noise, self.rng = rows, ahead, noise, np.random.default_rng(0)

    def change(self, reward_NET):
        q_NTSA, before_NTSA = self.rows.with_rewards(reward_NET).planned(), self.rows.planned()
        every = np.arange(len(q_NTSA))
        entry = q_NTSA.shape[1] - self.ahead
        moved_NA = centred((q_NTSA - before_NTSA)[every, entry, self.rows.queries])
        return moved_NA + self.noise * self.rng.normal(size=moved_NA.shape)


def test_layers_of_states_lead_to_the_next_alone(rows):
    """Every state of layer k is k steps away, or cannot be reached; so do contexts and posteriors have it."""
    S = rows.family.n_states
    layer_S = np.arange(S) // 2
    leads_NASS = np.asarray(rows.problem.transition) > 0
    assert not leads_NASS[..., layer_S[None] != (layer_S[:, None] + 1) % 3].any()
    np.testing.assert_array_equal(np.asarray(rows.problem.initial)[:, layer_S > 0], 0)
    np.testing.assert_allclose(np.asarray(rows.problem.transition).sum(-1), 1, atol=1e-6)
    distance_NS = influence.distances_of_states(rows)
    reached_NS = (distance_NS >= 0) & (distance_NS < 3)
    assert (distance_NS == layer_S[None])[reached_NS].all() and reached_NS.sum(1).min() >= 3
    visited_NETS = np.asarray(rows.episodes.observation)[..., :-1, None] == np.arange(S)
    np.testing.assert_array_equal((visited_NETS @ layer_S)[rows.context_steps], rows.context_steps.nonzero()[2])


def test_what_a_planner_moves_by_has_slope_one_as_far_as_it_looks_and_none_beyond(rows):
    near, beyond = depth_buys_planning.shifts(rows, 3, np.random.default_rng(0))
    for ahead in (1, 2, 3):
        found = [slope(depth_buys_planning.products([Planner(rows, ahead)], shift)) for shift in near]
        np.testing.assert_allclose(found, [float(k < ahead) for k in range(3)], atol=0.3)
        np.testing.assert_allclose(found[0] if ahead == 3 else 1, 1)
        np.testing.assert_array_equal(found[ahead:], 0)
    here = depth_buys_planning.products([Planner(rows)], near[0])
    out = depth_buys_planning.products([Planner(rows)], beyond)
    assert beyond.kept.mean() > 0.5 and depth_buys_planning.share(out, here) == 0
    assert depth_buys_planning.size(out, here) == 0
    noisy = depth_buys_planning.products([Planner(rows, noise=0.1)], beyond)
    assert depth_buys_planning.size(noisy, here) > 0.05


def test_a_shift_flips_all_that_is_recorded_in_one_state_and_nothing_else(rows):
    near, beyond = depth_buys_planning.shifts(rows, 3, np.random.default_rng(0))
    state_NET, own_NET = np.asarray(rows.episodes.steps.observation), np.asarray(rows.episodes.reward)
    for k, shift in enumerate([*near, beyond]):
        flipped_NET = shift.reward != own_NET
        np.testing.assert_array_equal((shift.reward + own_NET)[flipped_NET], 1)
        assert not flipped_NET[:, -1].any(), "nothing that comes later"
        for n in np.flatnonzero(shift.kept):
            (state,) = set(state_NET[n][flipped_NET[n]])
            assert state // 2 == k % 3 and flipped_NET[n].sum() == (state_NET[n, :-1] == state).sum()
            assert (state == rows.queries[n]) == (k == 0)
    exact_NA = influence.planned_change(rows, near[1].reward)
    np.testing.assert_allclose(near[1].exact[near[1].kept], exact_NA[near[1].kept], atol=1e-12)


def test_layers_that_take_one_backup_by_construction_reach_one_step_further_each():
    """Rewards of other states bring the best path of so many steps near to that of all steps, but not onto it."""
    found_XK = depth_buys_planning.constructed(DEPTHS[:3], 5, n=100, seed=0)
    within_XK = np.arange(5)[None] < DEPTHS[:3, None]
    np.testing.assert_allclose(found_XK, within_XK, atol=0.2)
    np.testing.assert_allclose(found_XK[~within_XK], 0, atol=1e-9)
    assert depth_buys_planning.margin(found_XK, DEPTHS[:3]) > 20


@pytest.mark.parametrize("law", depth_buys_planning.LAWS)
def test_the_law_that_made_the_slopes_is_found(law):
    past_XK = np.arange(6)[None] - depth_buys_planning.LAWS[law](DEPTHS)[:, None] - 0.5
    rho_XK = 1 / (1 + np.exp(past_XK / 0.4)) + 0.02 * np.random.default_rng(0).normal(size=past_XK.shape)
    found = depth_buys_planning.aic(rho_XK, DEPTHS)
    assert min(found, key=lambda name: found[name][0]) == law and found[law][1] == pytest.approx(0.4, rel=0.3)
    assert (depth_buys_planning.margin(rho_XK, DEPTHS) >= 4) == (law == "one_backup_a_layer")


def test_reach_is_the_largest_distance_with_half_the_slope():
    for rho_K, expected in (([1, 0.9, 0.6, 0.4], 2), ([0.2, 0.1, 0, 0], -1), ([1, 1, 1, 1], 3)):
        sums = np.ones((5, 4, 1, 3)) * np.array(rho_K)[None, :, None, None]
        sums[..., 1:] = 1
        assert depth_buys_planning.reach(sums) == expected
        np.testing.assert_allclose(depth_buys_planning.rho(sums[:, None])[0], rho_K)


def test_loops_that_are_iterates_are_known_as_such(rows):
    targets_JNA = loops_iterate_values.iterates(rows)
    for j in range(3):
        q_NA = rows.planned()[np.arange(40), 2 - j, rows.queries]
        np.testing.assert_allclose(targets_JNA[j], centred(q_NA))
    sums = loops_iterate_values.explained([targets_JNA, targets_JNA], targets_JNA)
    assert [loops_iterate_values.best_iterate(sums, r) for r in range(3)] == [1, 2, 3]
    assert loops_iterate_values.tau(sums) == 1
    assert loops_iterate_values.tau(sums[:, ::-1]) == -1 and loops_iterate_values.tau(sums[:, [1, 1, 1]]) == 0
    np.testing.assert_allclose(sums[:, 0, 1, 0], pair_products(targets_JNA[0], targets_JNA[1]))
    assert (loops_iterate_values.errors(targets_JNA, targets_JNA[-1])[:, -1] == 0).all()
    assert (loops_iterate_values.regrets(targets_JNA[-1], targets_JNA[-1]) == 0).all()
    assert loops_iterate_values.regrets(-targets_JNA[-1], targets_JNA[-1]).mean() > 0


@pytest.mark.slow
def test_both_claims_from_training_to_picture(tmp_path, monkeypatch):
    monkeypatch.setattr(trained_depth, "get_config", tiny)
    config = depth.get_config()
    for group, changes in (
        (config.depth_buys_planning, dict(variants=("1", "2"), distances=3)),
        (config.loops_iterate_values, dict(variants=("loops", "2"), loops=(1, 2, 4))),
    ):
        group.update(runs=str(tmp_path), tasks=40, **changes)
        trained.train_missing(group, say=lambda text: None)
    claim, figure = depth_buys_planning.check(config.depth_buys_planning)
    assert {"aic_margin", "unreachable_1_layers", "unreachable_2_layers"} == claim.threshold.keys()
    assert claim.measured["rho_1_layers_1"] == pytest.approx(0, abs=0.2) and len(figure.axes) == 3
    looped = trained.runs_by_variant(config.loops_iterate_values)["loops"][0]
    assert trained.held_out_loss(looped)[0] == [2, 4]
    claim, _ = loops_iterate_values.check(config.loops_iterate_values)
    assert claim.threshold.keys() == {"tau_of_loops", "error_4_loops_over_2"}
    model, rows = looped.model("fine_tuned"), trained.unseen_rows(looped, 40, config.loops_iterate_values.seed)
    each_RNA = loops_iterate_values.logits_after_each(looped, model.looped(4), rows)
    for loops in (1, 4):
        own = trained.query_logits(looped.layout, model.looped(loops), rows.episodes)
        temperature = looped.settings.labels.temperature
        np.testing.assert_allclose(each_RNA[loops - 1], temperature * centred(own), atol=1e-5)
    with pytest.raises(UserError, match="3 loops: the 2 layers have weights of their own"):
        trained.runs_by_variant(config.loops_iterate_values)["2"][0].model("fine_tuned").looped(3)
