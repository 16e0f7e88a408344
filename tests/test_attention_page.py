"""The page of attention against Q: its numbers against their definitions, and its controls in a real browser."""

import dataclasses
import functools
import itertools
import json

import chromium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.configs import tiger
from icdm.errors import UserError
from icdm.families.tiger import Tiger
from icdm.runs.phases import Phases
from icdm.runs.run import Run
from icdm.trajectories.collect import draw_problems, to_float32
from icdm.trajectories.layouts import LAYOUTS
from icdm.trajectories.layouts.transition import TransitionLayout
from icdm.trajectories.trajectory import Trajectories
from theory import attention_vs_q
from theory.circuits import attention_page, decisions, heads, trained
from theory.circuits.beliefs import beliefs_in_the_task, posterior
from theory.circuits.view import View
from theory.configs import trained_small

STEPS = (0, 1)


def small(layout="transition"):
    c = trained_small.get_config(layout)
    c.context.episodes = 3
    c.model.update(width=16, layers=2, heads=2, kv_heads=2, hidden=32)
    c.pretrain.steps = 0
    c.fine_tune.update(steps=4, batch=8, checkpoint_every=4)
    return c


def small_tiger():
    c = tiger.get_config()
    c.horizon, c.context.episodes = 3, 2
    c.model.update(width=16, layers=1, heads=2, kv_heads=2, hidden=16)
    c.pretrain.update(steps=0, mixture=())
    c.fine_tune.update(steps=4, batch=4, pool=4, checkpoint_every=4)
    return c


def view_of(layout):
    run = Run(None, json.loads(json.dumps(small(layout).to_dict())))
    return View(run, trained.unseen_rows(run, 5, 0), STEPS, run.start())


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["transition", "interleaved"])
def test_a_view_sees_what_a_reading_sees(layout):
    """At the first decision, attention and logits are those of `trained.read`; heads are removed as it removes them."""
    view = view_of(layout)
    episodes = view.rows.episodes
    read = trained.read(view.run.layout, view.model, episodes)
    np.testing.assert_allclose(view.attention_to_steps(episodes)[:, 0], np.moveaxis(read.attention, 1, 0), atol=1e-6)
    np.testing.assert_allclose(view.logits_NWA, view.scale * trained.centred(read.logits[:, -1, STEPS]), atol=1e-5)
    without = trained.read(view.run.layout, view.model, episodes, without=[(1, 0)])
    np.testing.assert_allclose(
        view.logits(episodes, ((1, 0),)), view.scale * trained.centred(without.logits[:, -1, STEPS]), atol=1e-5
    )
    values = heads.values_read(read.attention, episodes, view.discount)
    np.testing.assert_allclose(view.values_NWXHA[:, 0], np.moveaxis(values, 0, 1), atol=1e-5)


def test_values_at_a_later_decision_count_the_returns_so_far():
    episodes = view_of("transition").rows.episodes
    attention = np.random.default_rng(0).random((1, 5, 1, 4, 2))
    found = heads.values_read(attention, episodes, 1.0, step=1)
    reward, action = np.asarray(episodes.reward), np.asarray(episodes.action)
    for n, a in np.ndindex(5, 2):
        steps = [(e, t) for e, t in itertools.product(range(4), range(2)) if (e, t) < (3, 1) and action[n, e, t] == a]
        returns = [reward[n, e, t:].sum() if e < 3 else reward[n, e, t] for e, t in steps]
        weights = [attention[0, n, 0, e, t] for e, t in steps]
        if steps:
            np.testing.assert_allclose(found[0, n, 0, a], np.average(returns, weights=weights))


@pytest.mark.parametrize("signal", ["reward", "observation"])
def test_each_signal_is_replaced_in_one_copy(signal):
    view = view_of("transition")
    own = jax.tree.map(lambda x: np.asarray(x)[0], view.rows.episodes)
    many = decisions.each_replaced(view.rows.family, own, signal)
    for i, (e, t) in enumerate(np.ndindex(own.action.shape)):
        changed = {
            name: np.argwhere(getattr(many, name)[i] != getattr(own, name)) for name in ("reward", "observation")
        }
        place = [e, t] if signal == "reward" else [e, t + 1]
        assert changed.pop(signal).tolist() == [place]
        assert not any(len(places) for places in changed.values())


def test_a_layout_that_does_not_show_what_is_replaced_is_refused(monkeypatch):
    class WithoutRewards(TransitionLayout):
        def append(self, t, before, observation):
            tokens = super().append(t, before, observation)
            return dataclasses.replace(tokens, number=0 * tokens.number)

    monkeypatch.setitem(LAYOUTS, "transition", WithoutRewards)
    view = view_of("transition")
    episodes, _ = view.replaced_once(np.random.default_rng(0))["at the query's own state"]
    with pytest.raises(UserError, match="no position that shows a reward"):
        view.check_is_read(episodes)


def test_beliefs_are_those_of_bayes_rule():
    """A listener hears the tiger's side with the task's accuracy, and learns nothing from what its reward is."""
    problem = to_float32(draw_problems(Tiger(horizon=3), jax.random.key(0), 4))
    heard_N = np.array([0, 1, 1, 0])
    observation = np.stack([0 * heard_N, heard_N, heard_N, heard_N], -1)[:, None]
    nothing = np.zeros((4, 1, 3), int)
    episodes = Trajectories(*map(jnp.asarray, (observation, nothing, nothing - 1.0, nothing == 0)))
    found = beliefs_in_the_task(problem, episodes, (0, 2))
    accuracy_N = np.asarray(problem.emission)[:, 0, 0, 0]
    np.testing.assert_allclose(found[:, 0], 0.5)
    twice_N = accuracy_N**2 / (accuracy_N**2 + (1 - accuracy_N) ** 2)
    np.testing.assert_allclose(found[np.arange(4), 1, heard_N], twice_N, atol=1e-6)


def test_the_page_offers_decisions_that_are_reached_and_fits(monkeypatch):
    run = view_of("transition").run
    valid = np.ones((10, 4, 9), bool)
    valid[:, -1, 6:] = False
    assert attention_page.offered_steps(run, valid) == (0, 2, 3, 5)
    monkeypatch.setattr(attention_page, "ENTRIES", 1)
    assert attention_page.offered_steps(run, valid) == (0,)


def written(config, directory):
    Phases(Run.claim(directory, config)).train_all()
    return attention_vs_q.attention_vs_q(directory, tasks=12)


@pytest.fixture(scope="module")
def page_of(tmp_path_factory):
    """The page of a run by its name; it is trained when it is asked for."""
    configs = {"observed": small(), "tokens": small("interleaved"), "hidden": small_tiger()}
    return functools.cache(lambda name: written(configs[name], tmp_path_factory.mktemp(name)))


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if chromium.CHROMIUM is None:
        pytest.skip("there is no Chromium here")
    with chromium.opened(tmp_path_factory.mktemp("browser")) as page:
        yield page


@pytest.mark.slow
@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("name", ["observed", "tokens", "hidden"])
def test_every_control_works_and_nothing_overflows(page_of, browser, name, width):
    browser.errors.clear()
    browser.open(page_of(name), width)

    def shown(id):
        return browser.value(f"document.getElementById('{id}').innerHTML")

    def choose(id):
        """Takes the next option of a list."""
        browser.value(
            f"{{const s = document.getElementById('{id}'); s.selectedIndex = (s.selectedIndex + 1) % s.length;"
            "s.dispatchEvent(new Event('change', {bubbles: true}))}"
        )

    changes = {"context": "strip", "decision": "strip", "layer": "values", "head": "values", "action": "influence"}
    for control, panel in changes.items():
        before = shown(panel)
        choose(control)
        if browser.value(f"document.getElementById('{control}').length") > 1:
            assert shown(panel) != before, control
        assert browser.value("document.documentElement.scrollWidth <= window.innerWidth"), control
    browser.value("document.querySelector('#grid button').click()")
    assert browser.value("document.getElementById('layer').value + document.getElementById('head').value") == "00"
    assert browser.value("document.activeElement.closest('#grid') !== null")
    browser.value("document.querySelector('#strip [tabindex=\"0\"]').focus()")
    step = browser.value("picked.step")
    browser.press("ArrowLeft" if step else "ArrowRight")
    moved = browser.value("picked.step")
    assert abs(moved - step) == 1 and browser.value("Number(document.activeElement.dataset.step)") == moved
    assert "replaced" in shown("changes") and "without layer 0, head 0" in shown("changes")
    assert browser.value("document.getElementById('tokens-section').hidden") == (name != "tokens")
    assert browser.value("document.getElementById('beliefs-section').hidden") == (name != "hidden")
    assert browser.errors == []


@pytest.mark.slow
def test_what_the_page_says_of_a_picked_step_is_what_was_computed(page_of, browser):
    """The exact changes that the page holds are those of the posterior computed anew with the step replaced."""
    page = page_of("hidden")
    browser.open(page, 1280)
    run = trained.load(page.parent)
    rows = trained.unseen_rows(run, 12, 0)
    data = json.loads(browser.value("document.getElementById('data').textContent"))
    view = View(run, rows, tuple(data["decisions"]), run.model("fine_tuned"))
    kind, row, _ = attention_page.offered_contexts(view, np.random.default_rng(0))[0]
    assert kind == data["contexts"][0]["kind"]
    own = jax.tree.map(lambda x: np.asarray(x)[row], rows.episodes)
    many = decisions.each_replaced(rows.family, own, "observation")
    first = jax.tree.map(lambda x: x[:3], many)
    exact = trained.centred(posterior(rows.family, first, view.steps)[0] - view.planner_NWA[row][None])[:, 0]
    found = np.array(data["contexts"][0]["decisions"][0]["exact"][:3]) * data["quantum"]
    np.testing.assert_allclose(found, exact, atol=data["quantum"])
