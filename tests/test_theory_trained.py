"""What is seen of trained runs: readers, attention, probes, flips, ablations; each against its definition."""

import dataclasses
import itertools
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from flax import nnx

from icdm.errors import UserError
from icdm.models.taps import reading
from icdm.models.transformer import ModelConfig, Transformer
from icdm.readers.counts_planners import plan_from_context
from icdm.runs.run import Run
from icdm.runs.settings import as_json, completed
from icdm.trajectories.prompt import encode
from theory import attention_vs_q
from theory.circuits import attribution, decisions, heads, influence, patching, probes, regressions, trained
from theory.claims import (
    attention_reads_returns,
    influence_is_bayes,
    layers_hold_iterates,
    logits_are_q,
    logits_by_position,
    q_is_decodable,
    q_is_used,
    values_are_cached,
    values_can_be_swapped,
)
from theory.configs import quick, trained_small
from theory.linear.fitted_q_layers import values_after_layers

small_config = trained_small.get_config


def tiny(layout="transition"):
    """Six episodes of two decisions each: learned well enough in seconds."""
    c = small_config(layout)
    c.context.episodes = 6
    c.model.update(width=16, layers=2, heads=2, kv_heads=2, hidden=32)
    c.pretrain.steps = 2
    c.fine_tune.update(steps=200, learning_rate=1e-2, checkpoint_every=200)
    return c


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    """Settings of the four claims for one tiny run, which is trained here."""
    config = quick.get_config()
    common = dict(experiment="trained_small", seeds=1, tasks=64, runs=str(tmp_path_factory.mktemp("runs")))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trained_small, "get_config", tiny)
        for name in ("logits_are_q", "attention_reads_returns", "q_is_decodable", "q_is_used"):
            config[name].update(common)
        trained.train_missing(config.logits_are_q, say=lambda text: None)
        yield config


@pytest.fixture(scope="module")
def study(settings):
    return trained.studies(settings.logits_are_q)["transition"][0]


@pytest.fixture(scope="module")
def directory(settings):
    return trained.experiments_of(settings.logits_are_q)["transition"][0][0]


def random_mdp_rows(n=30, **changes):
    c = small_config()
    c.horizon = 3
    c.problem.update(states=3)
    c.update(changes)
    run = Run(pathlib.Path(), completed(as_json(c)))
    return run.layout, trained.unseen_rows(run, n, seed=0)


@pytest.mark.parametrize("episode, step", [(1, 0), (-1, 0), (-1, 2)])
def test_the_reader_knows_what_came_before_and_nothing_else(episode, step):
    _, rows = random_mdp_rows()
    found = rows.reader_q(episode, step)
    e = episode % rows.episodes.action.shape[1]
    known = np.zeros(rows.episodes.valid.shape, bool)
    known[:, :e] = True
    known[:, e, :step] = True
    context = dataclasses.replace(rows.episodes, valid=jnp.asarray(known), q=None)
    planned = plan_from_context(rows.family, rows.problem, context, "posterior_mean", jax.random.key(0))
    state = np.asarray(rows.episodes.observation)[:, e, step]
    np.testing.assert_allclose(found, np.asarray(planned)[np.arange(30), step, state])
    changed = np.asarray(rows.episodes.reward).copy()
    changed[:, e, step:] = 1 - changed[:, e, step:]
    later = dataclasses.replace(rows, episodes=dataclasses.replace(rows.episodes, reward=jnp.asarray(changed)))
    np.testing.assert_array_equal(later.reader_q(episode, step), found)
    if step < 2:
        assert np.abs(rows.reader_q(episode, step + 1) - found).max() > 1e-3


@pytest.mark.parametrize("prefix", [False, True])
def test_a_decision_is_that_after_the_episodes_before_it(prefix):
    c = small_config()
    c.pretrain.steps = 0
    c.model.prefix = prefix
    run = Run(pathlib.Path(), completed(as_json(c)))
    rows = trained.unseen_rows(run, 5, seed=0)
    model = run.start()
    study = trained.Study(run, {"fine_tuned": model}, rows, rows.episodes, {})
    study = study._replace(readings={"fine_tuned": trained.read(run.layout, model, rows.episodes)})
    found = decisions.logits_of_every_episode(study, "fine_tuned")
    for e in range(found.shape[1]):
        alone = jax.tree.map(lambda x, e=e: x[:, : e + 1], rows.episodes)
        expected = trained.read(run.layout, model, alone).logits[:, -1]
        np.testing.assert_allclose(found[:, e], expected, atol=1e-5)
    one_prompt = study.readings["fine_tuned"].logits
    assert (np.abs(one_prompt[:, 0] - found[:, 0]).max() > 1e-3) == prefix


@pytest.mark.parametrize("name", ["transition", "interleaved"])
def test_attention_falls_on_the_positions_that_hold_each_step(name):
    layout, rows = random_mdp_rows(layout=name)
    config = ModelConfig(width=16, layers=2, heads=2, kv_heads=2, hidden=16)
    model = Transformer(config, layout.size, nnx.Rngs(0))
    found = trained.read(layout, model, rows.episodes)
    read, taps = reading("embed", *(f"{i}.{place}" for i in range(2) for place in ("attention", "out")))
    model(encode(layout, rows.episodes).tokens, taps=taps)
    attention = jnp.stack([read[f"{i}.attention"] for i in range(2)])
    residual = jnp.stack([read["embed"], read["0.out"], read["1.out"]])
    n, n_episodes, n_steps = rows.episodes.action.shape
    length, expected = layout.positions, np.zeros(found.attention.shape)
    query = (n_episodes - 1) * (n_steps + 1) * length + length - 1
    for e, t, p in itertools.product(range(n_episodes), range(n_steps), range(length)):
        position = (e * (n_steps + 1) + t + 1) * length + p
        expected[..., e, t] += np.asarray(attention)[:, :, :, query, position]
    np.testing.assert_allclose(found.attention, expected, atol=1e-6)
    assert (found.attention[..., -1, :] == 0).all(), "nothing that comes later"
    np.testing.assert_allclose(found.residual, residual[:, :, query], atol=1e-5)
    # The query itself and the openings of the episodes have the rest.
    assert (found.attention.sum((-1, -2)) < 1).all() and (found.attention.sum((-1, -2)) > 0.3).all()


@pytest.mark.parametrize("name", ["transition", "interleaved"])
def test_the_terms_of_the_logits_add_up(name):
    layout, rows = random_mdp_rows(layout=name)
    model = Transformer(ModelConfig(width=16, layers=2, heads=2, kv_heads=1, hidden=16), layout.size, nnx.Rngs(0))
    found = attribution.terms(layout, model, rows.episodes)
    np.testing.assert_allclose(found.logits, trained.query_logits(layout, model, rows.episodes), atol=1e-5)
    np.testing.assert_allclose(found.total, found.logits, atol=1e-5)
    assert (found.attention[:, :, :, -1] == 0).all(), "nothing that comes after the query"
    nothing = np.zeros(rows.context_steps.shape, bool)
    same = attribution.logits_without(layout, model, rows.episodes, (1, 0), nothing)
    np.testing.assert_allclose(same, found.logits, atol=1e-5)
    cut = attribution.logits_without(layout, model, rows.episodes, (1, 0), rows.context_steps)
    assert np.abs(cut - found.logits).max() > 1e-3
    assert np.corrcoef((found.logits - cut).ravel(), found.attention[:, 1, 0].sum((1, 2)).ravel())[0, 1] > 0.8


def test_what_an_iterate_adds_owes_nothing_to_those_before():
    _, rows = random_mdp_rows()
    found = layers_hold_iterates.innovations(rows, 3)
    q_NTSA = rows.planned()
    iterates = [trained.centred(q_NTSA[np.arange(30), 3 - j, rows.queries]) for j in (1, 2, 3)]
    np.testing.assert_allclose(found[0], iterates[0])
    for j in (1, 2):
        for before in iterates[:j]:
            np.testing.assert_allclose((found[j] * before).sum(), 0, atol=1e-5)


def test_values_read_against_loops(rng):
    _, rows = random_mdp_rows()
    episodes = rows.episodes
    n, n_episodes, n_steps = episodes.action.shape
    attention = rng.random((2, n, 2, n_episodes, n_steps))
    found = heads.values_read(attention, episodes, 0.5)
    reward, action = np.asarray(episodes.reward), np.asarray(episodes.action)
    first_rewards = np.zeros(found.shape)
    for x, i, h, a in np.ndindex(found.shape):
        returns, wrong, mass = 0.0, 0.0, 0.0
        for e, t in itertools.product(range(n_episodes - 1), range(n_steps)):
            if action[i, e, t] == a:
                followed = sum(0.5 ** (u - t) * reward[i, e, u] for u in range(t, n_steps))
                returns += attention[x, i, h, e, t] * followed
                wrong += attention[x, i, h, e, t] * reward[i, e, t]
                mass += attention[x, i, h, e, t]
        np.testing.assert_allclose(found[x, i, h, a], returns / mass)
        first_rewards[x, i, h, a] = wrong / mass
    assert np.abs(first_rewards - found).max() > 0.1, "rewards alone are something else"


def test_an_action_that_is_never_shown_has_the_value_of_all():
    _, rows = random_mdp_rows()
    episodes = dataclasses.replace(rows.episodes, action=jnp.zeros_like(rows.episodes.action))
    values = heads.values_read(np.ones((1, 30, 1, *episodes.action.shape[1:])), episodes, 1.0)
    np.testing.assert_allclose(values[..., 1], values[..., 0])
    assert (heads.spearman(values[0, :, 0], rows.true_q()) == 0).all()


def test_what_heads_attend_to(study):
    episodes, queries = study.rows.episodes, study.rows.queries
    here = np.asarray(episodes.observation)[..., :-1] == queries[:, None, None]
    second = np.asarray(episodes.action) == 1
    for weight, expected in ((here & second, (1.0, 1.0)), (here, (1.0, None)), (second, (None, 1.0))):
        attention = weight[None, :, None].astype(float)
        changed = study.readings["fine_tuned"]._replace(attention=attention)
        shares = attention_reads_returns.attended_shares(study._replace(readings={"x": changed}), "x")
        for found, e in zip(shares, expected):
            assert found == pytest.approx(e) if e else 0.3 < found < 0.8


def test_rank_correlation_with_ties(rng):
    x, y = rng.integers(0, 4, (50, 5)), rng.normal(size=(50, 5))
    found = heads.spearman(x, y)
    kept = x.min(1) < x.max(1)
    expected = [scipy.stats.spearmanr(a, b).statistic for a, b in zip(x[kept], y[kept])]
    np.testing.assert_allclose(found[kept], expected, atol=1e-12)


def test_regression_is_that_of_all_pairs_of_actions(rng):
    z, q = rng.normal(size=(2, 40, 3))
    z += 2 * q + 1  # a level that all actions share
    pairs = list(itertools.permutations(range(3), 2))
    dz, dq = (np.concatenate([x[:, a] - x[:, b] for a, b in pairs]) for x in (z, q))
    sums = regressions.pair_products(z, q)[:, None]
    np.testing.assert_allclose(regressions.slope(sums), dz @ dq / (dq @ dq))
    residual = dz - dq * (dz @ dq) / (dq @ dq)
    np.testing.assert_allclose(regressions.r_squared(sums), 1 - residual @ residual / (dz @ dz))
    raw = (z.ravel() @ q.ravel()) ** 2 / (z.ravel() @ z.ravel()) / (q.ravel() @ q.ravel())
    assert abs(raw - regressions.r_squared(sums)) > 1e-3, "levels are something else than differences"


def test_the_minimiser_is_linear_in_q_only_at_high_temperature(study):
    explained = {}
    for temperature in (0.02, 5.0):
        config = study.run.config | {"fine_tune": study.run.config["fine_tune"] | {"temperature": temperature}}
        other = study._replace(run=dataclasses.replace(study.run, config=config))
        minimiser = logits_are_q.exact_minimiser(other, draws=60)
        mean = np.mean([study.rows.reader_q(planner="posterior_sampling", seed=i) for i in range(60)], axis=0)
        explained[temperature] = regressions.r_squared(regressions.pair_products(minimiser, mean)[:, None])
    assert explained[5.0] > 0.999 > explained[0.02] + 0.02


def test_probes_find_what_is_linear_and_no_more(rng):
    target = rng.normal(size=(400, 2))
    stream = np.concatenate([target @ rng.normal(size=(2, 8)), rng.normal(size=(400, 4))], axis=1)
    found = probes.squares(stream, target, (1e-4, 1.0))
    assert probes.r_squared(found[:, None]) > 0.99
    other = probes.squares(stream, rng.normal(size=(400, 2)), (1e-4, 1.0))
    assert probes.r_squared(other[:, None]) < 0.05
    assert len(found) == 200, "scored on tasks it was not fitted on"
    wide = rng.normal(size=(80, 38))  # 40 tasks to fit, 38 numbers each: the probe of least ridge knows them all
    seen = probes.errors(np.tile(wide[:40], (2, 1)), np.tile(target[:40], (2, 1)), 40, 1e-6)
    unseen = probes.errors(wide, target[:80], 40, 1e-6)
    chosen = probes.squares(wide, target[:80], (1e-6, 100.0))
    assert probes.r_squared(seen[:, None]) > 0.5 and probes.r_squared(unseen[:, None]) < 0
    assert probes.r_squared(chosen[:, None]) > probes.r_squared(unseen[:, None])


def test_the_control_target_is_another_task_at_the_same_state():
    _, rows = random_mdp_rows()
    other = probes.of_another_task(rows, rows.true_q())
    for i in range(30):
        same = np.flatnonzero(np.isclose(rows.true_q(), other[i]).all(-1))
        assert same.size == 1 and same[0] != i and rows.queries[same[0]] == rows.queries[i]


def test_shuffled_actions_are_the_same_actions_elsewhere():
    _, rows = random_mdp_rows()
    shuffled = trained.shuffle_actions(rows.episodes, np.random.default_rng(0))
    before, after = np.asarray(rows.episodes.action), np.asarray(shuffled.action)
    np.testing.assert_array_equal(before.sum((1, 2)), after.sum((1, 2)))
    np.testing.assert_array_equal(before[:, -1], after[:, -1])
    assert (before != after).mean() > 0.2
    moved = dataclasses.replace(rows, episodes=shuffled).reader_q()
    explained = regressions.r_squared(regressions.pair_products(moved, rows.reader_q())[:, None])
    assert explained < 0.3, "what is left tells little of the actions"


@pytest.mark.parametrize("place", q_is_used.PLACES)
def test_flips_change_one_reward_and_what_the_planner_makes_of_it(place):
    _, rows = random_mdp_rows()
    flipped = q_is_used.flip(rows, place, np.random.default_rng(0))
    after = flipped.applied(rows.episodes, rows.family)
    change = np.asarray(after.reward) - np.asarray(rows.episodes.reward)
    assert (np.abs(change).sum((1, 2))[flipped.rows_I] == 1).all() and np.abs(change).sum() == len(flipped.rows_I)
    index = (flipped.rows_I, flipped.episode_I, flipped.step_I)
    state, action = np.asarray(rows.episodes.observation)[index], np.asarray(rows.episodes.action)[index]
    assert ((state == rows.queries[flipped.rows_I]) == (place == "here")).all()
    planned = dataclasses.replace(rows, episodes=after).reader_q() - rows.reader_q()
    np.testing.assert_allclose(flipped.q_change, trained.centred(planned)[flipped.rows_I], atol=1e-12)
    if place == "here":  # an action that paid is worth more than it was, compared with the others
        own = np.take_along_axis(flipped.q_change, action[:, None], 1)[:, 0]
        assert (np.sign(own) == change[index]).all()
    ours = np.stack([flipped.q_change, -flipped.q_change], axis=1)
    np.testing.assert_array_equal(q_is_used.agreement(ours, flipped.q_change), 0.5)


def test_heads_that_are_removed_write_nothing(study):
    model, layout = study.models["fine_tuned"], study.run.layout
    episodes = study.rows.episodes
    other = dataclasses.replace(episodes, reward=1 - episodes.reward)

    def silenced(heads):
        """The same by the weights with which a head writes into the stream."""
        copy = jax.tree.map(lambda w: w, model)
        width = model.config.head_width
        for layer, head in heads:
            copy.blocks.o[...] = copy.blocks.o[...].at[layer, head * width : (head + 1) * width].set(0)
        return trained.read(layout, copy, episodes).logits

    def moved(heads):
        before, after = (trained.read(layout, model, e, without=heads).logits[:, -1, 0] for e in (episodes, other))
        return np.abs(before - after).max()

    one, every = [(0, 1)], list(itertools.product(range(2), range(2)))
    for heads_removed in (one, every):
        without = trained.read(layout, model, episodes, without=heads_removed).logits
        np.testing.assert_allclose(without, silenced(heads_removed), atol=1e-5)
    assert moved(every) == 0 and moved(one) > 1e-3 and moved(()) > 1e-3, "without heads nothing is read"


def fitted_q(rows, layers):
    """Values at the queries by the transformer of `control_exact`, which takes one fitted-Q step a layer, (N, A)."""
    actions = np.arange(rows.family.n_actions)
    columns = (np.asarray(x)[:, :-1].reshape(len(rows.queries), -1) for x in rows.episodes.steps)
    state_NI, action_NI, reward_NI, arrival_NI = columns
    pairs = np.eye(rows.family.n_states * len(actions))

    def features(state, action):
        return pairs[state * len(actions) + action]

    phi_NIC = features(state_NI, action_NI)
    often_NC = np.maximum(phi_NIC.sum(1), 1)
    step_NCC = np.stack([np.diag(len(state_NI[0]) / often_C) for often_C in often_NC])
    later_NIAC, query_NAC = (features(s[..., None], actions) for s in (arrival_NI, rows.queries))
    return values_after_layers(phi_NIC, later_NIAC, reward_NI, query_NAC, step_NCC, 1.0, layers, np.inf)[:, -1]


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_a_transformer_that_plans_by_construction_has_influence_as_far_as_its_layers_reach(
    layers,
):
    c = small_config()
    c.horizon = 3
    c.problem.update(states=4)
    c.context.episodes = 40
    rows = trained.unseen_rows(Run(pathlib.Path(), completed(as_json(c))), 60, seed=0)
    before_NA, distance_NET = fitted_q(rows, layers), influence.distances(rows)
    for k in range(3):
        reward_NET, kept_N = influence.flip(rows, distance_NET == k, np.random.default_rng(0))
        moved_NA = trained.centred(fitted_q(rows.with_rewards(reward_NET), layers) - before_NA)
        sums_N13 = regressions.pair_products(moved_NA[kept_N], influence.planned_change(rows, reward_NET)[kept_N])[
            :, None
        ]
        if k < layers - 1 or layers == 3:  # the prior holds the planner back, so that slopes are above 1
            assert regressions.slope(sums_N13) > 0.8 and regressions.r_squared(sums_N13) > 0.8
        if k >= layers:
            assert abs(regressions.slope(sums_N13)) < 0.05  # rare steps lead there sooner


def test_regret_of_greedy_decisions():
    _, rows = random_mdp_rows()
    q = np.asarray(rows.episodes.q, np.float64)
    assert (q_is_used.regrets(q, rows.episodes) == 0).all()
    uniform = q_is_used.regrets(np.zeros(q.shape), rows.episodes)
    np.testing.assert_allclose(uniform, (q.max(-1) - q.mean(-1))[:, -1].sum(-1))
    assert (q_is_used.regrets(-q, rows.episodes) >= uniform).all()


def test_a_trained_run_is_told_from_its_controls(settings):
    claim, _ = logits_are_q.check(settings.logits_are_q)
    assert claim.measured["r2_reader_transition"] > 0.6
    for name in ("random_start", "pretrained_only", "shuffled_context"):
        assert claim.control[f"r2_reader_{name}_transition"] < 0.3, name
    claim, _ = attention_reads_returns.check(settings.attention_reads_returns)
    assert claim.measured["largest_p_value_transition"] < 0.2
    claim, _ = q_is_used.check(settings.q_is_used)
    assert claim.measured["sign_agreement_here_transition"] > 0.8
    claim, _ = q_is_decodable.check(settings.q_is_decodable)
    assert claim.measured["selectivity_transition"] > 0.1


def test_what_was_trained_is_not_trained_again_and_other_settings_are_refused(settings, monkeypatch):
    said = []
    trained.train_missing(settings.logits_are_q, said.append)
    assert not said
    other = tiny()
    other.fine_tune.temperature = 2.0
    monkeypatch.setattr(trained_small, "get_config", lambda layout: other.copy_and_resolve_references())
    with pytest.raises(UserError, match="belongs to another config: fine_tune.temperature"):
        trained.train_missing(settings.logits_are_q, said.append)


@pytest.mark.parametrize("k", [0, 1, 2])
def test_one_reward_at_its_distance_is_flipped_in_every_context(rng, k):
    """Distances by a search through the states, one task at a time."""
    _, rows = random_mdp_rows(problem=dict(states=6, actions=2, concentration=0.05))
    distance_NET = influence.distances(rows)
    leads = np.asarray(rows.problem.transition) >= influence.SURE
    states = np.asarray(rows.episodes.observation)[..., :-1]
    for n, query in enumerate(rows.queries):
        found, reached = {query: 0}, [query]
        for s in reached:
            for arrival in np.flatnonzero(leads[n, :, s].any(0)):
                if arrival not in found:
                    found[arrival] = found[s] + 1
                    reached.append(arrival)
        np.testing.assert_array_equal(distance_NET[n], np.vectorize(lambda s, f=found: f.get(s, -1))(states[n]))
    reward_NET, kept_N = influence.flip(rows, distance_NET == k, rng)
    changed_NET = reward_NET != np.asarray(rows.episodes.reward)
    np.testing.assert_array_equal(changed_NET.sum((1, 2))[kept_N], 1)
    assert kept_N.sum() > 15 and (distance_NET[changed_NET & kept_N[:, None, None]] == k).all()
    assert not changed_NET[:, -1].any() and set(np.unique(reward_NET)) == {0, 1}


def test_the_planner_has_the_influence_of_the_planner_and_a_myopic_reader_none_from_afar(rng):
    _, rows = random_mdp_rows(problem=dict(states=6, actions=2, concentration=0.05))
    myopic = dataclasses.replace(rows, family=dataclasses.replace(rows.family, horizon=1))
    moved = []
    for k in (0, 1):
        reward_NET, kept_N = influence.flip(rows, influence.distances(rows) == k, rng)
        exact, theirs = (influence.planned_change(x, reward_NET)[kept_N] for x in (rows, myopic))
        moved.append((np.abs(exact).max(), np.abs(theirs).max()))
    assert moved[0][1] > 0.01 and moved[1][0] > 0.01 and moved[1][1] == 0


def test_influence_is_measured_beside_its_controls(directory):
    config = quick.get_config().influence_is_bayes
    config.update(run=str(directory), tasks=64, distances=1)
    claim, _ = influence_is_bayes.check(config)
    assert claim.control["slope_0_myopic"] > 0.5 and abs(claim.control["slope_0_random_weights"]) < 0.3
    assert claim.measured["slope_0"] > 0.3 > abs(claim.control["slope_0_shuffled_context"])
    with pytest.raises(UserError, match="no context has a reward at this distance"):
        influence.flip(trained.unseen_rows(trained.examined(config)[0], 4, 0), False, np.random.default_rng(0))


def test_a_context_whose_positions_attend_to_themselves_alone_is_read_as_single_steps(directory):
    """The last layer's context is read by nobody; in all layers, a step says the same whatever the others show."""
    config = quick.get_config().values_are_cached
    config.update(run=str(directory), tasks=32)
    run = Run.open(directory)
    rows = trained.unseen_rows(run, 8, 0)
    model, layers = run.model("fine_tuned"), range(run.settings.model.layers)
    whole, last, every = (
        trained.query_logits(run.layout, model, rows.episodes, alone) for alone in ((), (layers[-1],), tuple(layers))
    )
    np.testing.assert_array_equal(last, whole)
    assert np.abs(every - whole).max() > 1e-3
    order = np.arange(rows.episodes.action.shape[1])
    order[:-1] = order[:-1][::-1]  # of the context's episodes, which mean the same in any order
    mixed = jax.tree.map(lambda x: x[:, order], rows.episodes)
    np.testing.assert_allclose(trained.query_logits(run.layout, model, mixed, tuple(layers)), every, atol=1e-4)
    claim, _ = values_are_cached.check(config)
    assert claim.control["share_left_1_last_layer"] == pytest.approx(1)
    assert claim.verdicts.keys() == {"share_left_1", "r2_0"}


@pytest.mark.slow
def test_the_model_of_the_package_reads_the_steps_in_its_own_state():
    config = quick.get_config().logits_by_position
    config.tasks = 8
    claim, _ = logits_by_position.check(config)
    assert claim.measured["exact_error"] < 1e-5 and claim.measured["path_r2"] > 0.9
    whole = sum(claim.measured[f"share_{part}"] for part in ("attention", "mlp", "embedding"))
    np.testing.assert_allclose(whole, 1, atol=1e-4)
    assert claim.measured["share_own_state"] > 3 * claim.control["share_own_state_of_all_steps"]


def test_the_probes_of_iterates_find_what_is_written_into_the_stream(rng):
    targets = [rng.normal(size=(400, 2)) for _ in range(3)]
    streams = [rng.normal(size=(400, 6)) for _ in range(4)]
    for j, target in enumerate(targets):
        streams[j + 1][:, 2 * j : 2 * j + 2] = target
    found = layers_hold_iterates.scores([np.stack(streams)], targets, (0.01, 1.0))
    assert [layers_hold_iterates.best_layer(found, j) for j in range(3)] == [1, 2, 3]
    assert layers_hold_iterates.tau(found) == 1


def test_patched_runs_are_those_of_the_source_or_of_the_target(directory, rng):
    """Nothing changes, bit for bit, where source and target are the same or no step is swapped; with all steps swapped
    before the first layer the model reads the source."""
    run = Run.open(directory)
    rows = trained.unseen_rows(run, 8, 0)
    other = rows.with_rewards(1 - np.asarray(rows.episodes.reward)).episodes
    model, valid_NET = run.model("fine_tuned"), np.asarray(rows.episodes.valid)
    own, theirs = (trained.query_logits(run.layout, model, x) for x in (rows.episodes, other))

    def patched(source, steps_NET, place="0.out"):
        return patching.patched_logits(run.layout, model, rows.episodes, source, place, steps_NET)

    some_NET = rng.random(valid_NET.shape) < 0.5
    np.testing.assert_array_equal(patched(rows.episodes, some_NET), patched(rows.episodes, np.zeros_like(valid_NET)))
    np.testing.assert_allclose(patched(rows.episodes, some_NET), own, atol=1e-5)
    np.testing.assert_allclose(patched(other, valid_NET, "embed"), theirs, atol=1e-5)
    assert np.abs(patched(other, valid_NET) - own).max() > 1e-4


def test_claims_about_states_refuse_runs_that_hide_them(directory, tmp_path):
    config = json.loads((directory / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"family": "tiger", "problem": {}}))
    with pytest.raises(UserError, match="hides its state"):
        trained.load_observed(tmp_path)


def test_values_are_swapped_at_the_steps_that_touch_the_state(rng):
    _, rows = random_mdp_rows(problem=dict(states=6, actions=2, concentration=0.05))
    state_N, kept_N = values_can_be_swapped.neighbours(rows, rng)
    assert kept_N.sum() > 10 and (state_N != rows.queries)[kept_N].all()
    assert influence.reachable(rows)[np.arange(30), rows.queries, state_N][kept_N].all()
    sets = values_can_be_swapped.step_sets(rows, state_N, rng)
    origin, arrival = (np.asarray(x) for x in (rows.episodes.steps.observation, rows.episodes.steps.arrival))
    wanted = state_N[:, None, None]
    assert (origin == wanted)[sets["at"]].all() and (arrival == wanted)[sets["into"]].all()
    assert not ((origin == wanted) | (arrival == wanted))[sets["others"]].any()
    assert not any(steps_NET[:, -1].any() for steps_NET in sets.values())
    reward_NET = influence.opposite(rows, sets["at"])
    np.testing.assert_array_equal(reward_NET != np.asarray(rows.episodes.reward), sets["at"])


def test_swaps_are_measured_beside_the_whole_other_context(directory):
    config = quick.get_config().values_can_be_swapped
    config.update(run=str(directory), tasks=64)
    claim, _ = values_can_be_swapped.check(config)
    whole, embed = claim.measured["slope_whole"], claim.measured["slope_at_embed"]
    assert embed == pytest.approx(whole, abs=1e-3)  # rewards enter at the steps in the state alone
    assert claim.measured["slope_into_embed"] == claim.measured["slope_others_embed"] == 0
    assert claim.measured["tasks_whose_best_action_changes"] > 0
    config.tasks = 1
    with pytest.raises(UserError, match="give more tasks|no context shows a state"):
        values_can_be_swapped.check(config)


@pytest.mark.slow
def test_attention_vs_q_writes_a_page_with_its_pictures(directory, capsys):
    attention_vs_q.main(["--run", str(directory), "--tasks", "16", "--head", "1"])
    page = (directory / "attention_vs_q.html").read_text()
    assert "http" not in page.replace("http://www.w3.org/2000/svg", "") and "head 1: rank correlation" in page
    data = json.loads(page.split('<script type="application/json" id="data">')[1].split("</script>")[0])
    assert [each["kind"] for each in data["contexts"]] == ["best"] * 4 + ["worst"] * 4 + ["random"] * 8
    errors = [float(each["error"]) for each in data["contexts"]]
    assert max(errors[:4]) <= min(errors[8:]) and max(errors[8:]) <= min(errors[4:8])
    pictures = {p.name for p in (directory / "attention_vs_q").iterdir()}
    assert pictures == {f"{n}.{k}" for n in ("scatter", "heat_map", "context", "influence") for k in ("png", "pdf")}
    assert "attention_vs_q.html" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--layer", "2"], "--layer 2: the model of {run} has layers 0 to 1"),
        (["--head", "-1"], "--head -1: the model of {run} has heads 0 to 1"),
        (["--tasks", "1"], "--tasks 1: give at least 4"),
    ],
)
def test_layers_and_heads_that_do_not_exist(directory, capsys, arguments, words):
    with pytest.raises(SystemExit) as exit:
        attention_vs_q.main(["--run", str(directory), *arguments])
    assert exit.value.code == 2
    assert capsys.readouterr().err == f"theory.attention_vs_q: {words.format(run=directory)}\n"


def test_more_tasks_than_memory_holds_are_refused(directory):
    with pytest.raises(UserError, match="--tasks 1000000000000: would take at least .* GiB"):
        attention_vs_q.attention_vs_q(directory, tasks=10**12)


@pytest.mark.slow
def test_directories_without_a_trained_model(directory, tmp_path, capsys):
    config = json.loads((directory / "config.json").read_text())
    begun = tmp_path / "begun"
    begun.mkdir()
    (begun / "config.json").write_text(json.dumps(config))
    untuned = tmp_path / "untuned"
    untuned.mkdir()
    (untuned / "config.json").write_text(json.dumps(config | {"fine_tune": config["fine_tune"] | {"steps": 0}}))
    for run, words in ((tmp_path, "is not a run"), (begun, "has not got there yet"), (untuned, "was not fine-tuned")):
        with pytest.raises(SystemExit) as exit:
            attention_vs_q.main(["--run", str(run)])
        (line,) = capsys.readouterr().err.splitlines()
        assert exit.value.code == 2 and line.startswith("theory.attention_vs_q: ") and words in line
