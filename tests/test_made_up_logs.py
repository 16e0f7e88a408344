"""Worlds of known truth that are seen through features, of which benchmarks make logs."""

import importlib.util

import jax
import numpy as np
import pytest

from benchmarks.encodings import FEATURES, MISSING, SIZES, random_world
from benchmarks.hospital import HORIZON, TREATMENTS, Measuring, clinicians, hospital
from benchmarks.worlds import Knowing, columns, optimum, play, value_of, write_log
from icdm.families.icu_sepsis import ACTIONS, DEATH, ICUSepsis, nominal_mdp
from icdm.logs.describe import describe
from icdm.oracles.backward_induction import policy_value

UNIFORM = np.full((1, SIZES["states"], SIZES["actions"]), 1 / SIZES["actions"])
needs_icu_sepsis = pytest.mark.skipif(importlib.util.find_spec("icu_sepsis") is None, reason="extra clinical")


def test_episodes_that_are_played_earn_what_is_exact():
    world = random_world(0)
    returns = play(world, Knowing(UNIFORM), 4000, seed=1).returns
    assert returns.mean() == pytest.approx(value_of(world, UNIFORM), abs=5 * returns.std() / 4000**0.5)
    assert value_of(world, UNIFORM) < optimum(world)


def test_the_log_of_a_world_is_read_as_it_was_played(tmp_path):
    world = random_world(0)
    played = play(world, Knowing(UNIFORM), 300, seed=1)
    write_log(tmp_path / "log.csv", world, played, with_probabilities=True)
    found = describe(tmp_path / "log.csv", columns=(*columns(world), "behavior_probability=pscore"))
    assert not found["defects"] and found["episodes"] == 300 and found["steps"] == played.valid.sum()
    assert found["return"]["mean"] == pytest.approx(played.returns.mean())
    assert found["steps_with_behavior_probability"] == found["steps"] and len(found["features"]) == FEATURES
    for shown, own in zip(found["features"].values(), np.moveaxis(played.value, -1, 0)):
        assert shown["missing"] == pytest.approx(MISSING, abs=0.03)
        assert (shown["min"], shown["max"]) == pytest.approx((np.nanmin(own), np.nanmax(own)), rel=1e-4)


@needs_icu_sepsis
def test_eight_treatments_keep_the_value_of_the_clinicians_policy():
    assert sorted(sum(TREATMENTS.values(), [])) == list(range(ACTIONS)) and len(TREATMENTS) == 8
    world, family = hospital(), ICUSepsis(HORIZON)
    nominal = jax.tree.map(lambda x: np.asarray(x)[None], nominal_mdp(HORIZON))
    exact = float(policy_value(nominal, family.expert[None, None])[0])
    assert value_of(world, clinicians(world)) == pytest.approx(exact, abs=1e-9)
    rng = np.random.default_rng(0)
    state = rng.integers(0, DEATH, 50)
    value = np.stack([scale(x) for scale, x in zip(world.scale, world.mean_SF[state].T)], -1)  # without noise
    actor = Measuring(clinicians(world), world=world)
    np.testing.assert_array_equal(actor.chances(state, value), clinicians(world)[0, state])
    hidden = np.where(rng.random(value.shape) < 0.3, np.nan, value)
    assert np.allclose(actor.chances(state, hidden).sum(1), 1)
