"""The grid of a sweep, and what it says of many runs."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

from experiments.configs import language_sweep
from experiments.grid import axes_of, config_at, points_of
from experiments.sweep_report import APART, comparisons, drawings, overview, trends
from icdm.errors import UserError


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


def test_a_value_of_an_axis_can_stand_for_several_fields():
    c = language_sweep.get_config()
    axes = axes_of(c, ["distinct_tasks=25,400", "learner=small_looped", "config.horizon=5"])
    assert axes == {"distinct_tasks": [25, 400], "horizon": [5], "learner": ["small_looped"]}
    [first, second] = (config_at(c, point) for point in points_of(axes))
    assert (first.fine_tune.pool, second.fine_tune.pool) == (25, 400)
    assert first.fine_tune.steps == 2000 and first.fine_tune.lora_rank == 0  # the later axis wins over its 38 updates
    assert first.layout == "transition" and first.weights == "" and first.horizon == 5 and "sweep" not in first
    with pytest.raises(UserError, match="unknown value of learner 'smal': did you mean 'small'"):
        axes_of(c, ["learner=smal"])


def test_settings_are_compared_task_by_task_where_their_tasks_are_the_same(tmp_path):
    rng = np.random.default_rng(0)
    optimal, noise = 2 + rng.random(50), rng.random(50)

    def run(name, values, optimal=optimal):
        (tmp_path / name).mkdir()
        arrays = {"policy/fine_tuned": values, "optimal": optimal, "random": optimal - 1}
        np.savez(tmp_path / name / "values.npz", **arrays)
        return [tmp_path / name]

    points = [{"n": 1, "learner": name} for name in ("a", "b", "c")] + [{"n": 2, "learner": "a"}]
    runs = [
        run("a", optimal - 0.1 - noise),
        run("b", optimal - 0.3 - noise),
        run("c", optimal - 0.1, optimal + 1),
        run("d", optimal),
    ]
    [found] = comparisons(points, runs)  # c met other tasks, and n is a number
    assert (found["first"], found["second"], found["at"]) == ("a", "b", {"n": 1})
    assert found["mean"] == pytest.approx(-0.2) and found["ci95"] == pytest.approx([-0.2, -0.2])


def test_words_among_the_numbers_of_an_axis_are_drawn_at_its_end():
    """Also for a policy that lacks the value in words."""
    number = {"mean": 0.2, "ci95": [0.1, 0.3]}

    def at(n):
        names = ("fine_tuned", "memoriser") if n != "endless" else ("fine_tuned",)
        policies = {name: {"normalized_gap": number} for name in names}
        return {"family": "random_mdp", "point": {"tasks": n}, "policies": policies}

    [(name, _, figure)] = drawings([at(n) for n in ("endless", 16, 4)], {"tasks": ["endless", 16, 4]}, {})
    assert name == "normalized_gap_against_tasks"
    [axis] = figure.axes
    assert [label.get_text() for label in axis.get_xticklabels()] == ["4", "16", "endless"]
    places = {line.get_label(): list(line.get_xdata()) for line in axis.get_lines()}
    assert places == {"fine tuned": [0, 1, 2], "memoriser": [0, 1]}


def measured(horizon, learner, gaps):
    policies = {name: {"normalized_gap": {"mean": gap, "ci95": [0.9 * gap, 1.1 * gap]}} for name, gap in gaps.items()}
    return {
        "family": "energy",
        "point": {"horizon": horizon, "learner": learner, "domain": "one"},
        "policies": policies,
    }


@pytest.fixture()
def swept():
    level = {"fine_tuned": 0.02, "posterior_mean": 0.02, "copy": 0.0201, "no_context": 0.0199, "random": 1.0}
    worse = level | {"fine_tuned": 0.2}
    return [measured(h, learner, gaps) for h in (5, 10) for learner, gaps in (("a", level), ("b", worse))]


def test_every_line_has_its_name_and_no_name_covers_another(swept):
    [(name, _, figure)] = drawings(swept, {"horizon": [5, 10], "learner": ["a", "b"]}, {})
    assert name == "normalized_gap_against_horizon" and len(figure.axes) == 2
    for axis in figure.axes:
        named = {text.get_text(): text.xyann[1] for text in axis.texts}
        assert set(named) == {"fine tuned", "posterior mean", "copy", "no context", "random"}
        heights = np.sort(list(named.values()))
        assert (np.diff(heights) >= APART - 1e-9).all() and heights[0] >= 0
        assert axis.get_legend() is None and figure.legends == []
    plt.close(figure)


def test_the_overview_has_the_best_setting_on_top_and_names_what_differs(swept):
    table = overview(swept)
    assert [row["name"] for row in table["rows"]][:2] == ["horizon 5, learner a", "horizon 10, learner a"]
    assert table["metrics"] == ["normalized gap, %"] and table["rows"][-1]["cells"] == ["20.0 [18.0, 22.0]"]
