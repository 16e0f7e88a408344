"""What a sweep says of many runs."""

import pytest

from experiments.sweep_report import drawings, trends


def entry(problem, gap):
    policies = {"in_context": {"gap": {"mean": 0.2}}, "fine_tuned": {"gap": {"mean": gap}}}
    point = {"problem": problem, "horizon": 5}
    return {"family": problem.split(":")[0], "point": point, "policies": policies}


def test_a_cloud_of_one_model_is_compared_at_every_pessimism():
    sizes = [
        entry("energy_apomdp:n_models=1,pessimism=0.5", 0.01),
        entry("energy_apomdp:n_models=3,pessimism=0.0", 0.03),
        entry("energy_apomdp:n_models=3,pessimism=1.0", 0.05),
    ]
    found = trends([entry("energy_pomdp:fidelity=0.5", 0.0), *sizes], {"n_models": (1, "pessimism")})
    assert found["n_models"]["settings"] == 2 and found["n_models"]["grows_in"] == 0
    assert found["n_models"]["mean"] == pytest.approx((-0.02 - 0.04) / 2)
    assert found["pessimism"]["settings"] == 1 and found["pessimism"]["mean"] == pytest.approx(-0.02)
    assert set(found) == {"n_models", "pessimism"}


def test_a_cloud_that_is_not_named_in_the_grid_has_no_pictures_of_ambiguity():
    swept = entry("", 0.1) | {"family": "energy_apomdp", "point": {"problem.pessimism": 0.5}}
    assert [name for name, _, _ in drawings([swept], {"problem.pessimism": [0.5]}, {})] == []
