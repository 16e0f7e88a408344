"""Labels from tables of Q: a teacher that reads the same context, and fewer rewards to come for earlier layers."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from experiments.configs import base
from icdm.errors import UserError
from icdm.learning.objectives import Advantage, LabelConfig, action_loss
from icdm.learning.planned import Planned, q_ahead
from icdm.learning.sources import Labelled
from icdm.models.transformer import ModelConfig, Transformer
from icdm.oracles.backward_induction import plan
from icdm.problems.family import make_family
from icdm.problems.mdp import expected_reward
from icdm.readers.counts_planners import plan_from_context
from icdm.runs.settings import Settings
from icdm.trajectories.collect import ContextConfig, draw_problems, draw_tasks, to_float32
from icdm.trajectories.layouts import make_layout

FAMILY = make_family("random_mdp", horizon=4, discount=0.9)
ROWS = Labelled(ContextConfig(3, "uniform"), "mixture", LabelConfig("advantage", 0.5))
B = 5


@pytest.fixture(scope="module")
def lesson():
    tasks = draw_tasks(FAMILY, jax.random.key(0), B)
    return lambda teacher, ahead: jax.jit(
        lambda key: Planned(ROWS, ROWS.labels, teacher, ahead)(FAMILY, tasks, jnp.arange(B), key)
    )(jax.random.key(1))


def test_the_oracle_as_teacher_labels_as_ever(lesson):
    tasks = draw_tasks(FAMILY, jax.random.key(0), B)
    plain = ROWS(FAMILY, tasks, jnp.arange(B), jax.random.key(1))
    np.testing.assert_allclose(lesson("oracle", ()).target.q, plain.target.q, atol=1e-6)


def test_the_posterior_mean_teaches_what_the_context_tells(lesson):
    found = lesson("posterior_mean", ())
    context = jax.tree.map(lambda x: x[:, :3], found.trajectories)
    problem = draw_tasks(FAMILY, jax.random.key(0), B).problem
    table = plan_from_context(FAMILY, problem, context, "posterior_mean", jax.random.key(2))
    state = np.asarray(found.trajectories.observation)[:, :, :-1]
    expected = table[np.arange(B)[:, None, None], np.arange(FAMILY.horizon)[None, None], state]
    np.testing.assert_allclose(found.target.q, expected, rtol=1e-5)


def test_iterates_are_value_iteration_from_the_next_reward_on(lesson):
    problem = draw_problems(FAMILY, jax.random.key(0), B)
    found = lesson("oracle", (1, 2))
    row, state = np.arange(B)[:, None, None], np.asarray(found.trajectories.observation)[:, :, :-1]
    np.testing.assert_allclose(found.iterates[0].q, expected_reward(to_float32(problem))[row, state], rtol=1e-5)
    two = np.asarray(plan(dataclasses.replace(problem, horizon=2)))
    expected = np.where(
        np.arange(4)[:, None] < 3, two[:, 0][row, state], two[:, 1][row, state]
    )  # one step is left at 3
    np.testing.assert_allclose(found.iterates[1].q, expected, rtol=1e-5)
    q_BTSA = jnp.asarray(plan(problem), jnp.float32)
    np.testing.assert_allclose(q_ahead(q_BTSA, found.trajectories, 4), found.target.q, atol=1e-6)


@pytest.mark.slow
def test_earlier_layers_are_asked_through_the_same_readout(lesson):
    """With one layer's stream as the target of itself nothing is added; each layer's weights get a gradient."""
    layout = make_layout("transition", FAMILY, reward_bins=2)
    model = Transformer(ModelConfig(width=16, layers=3, heads=2, kv_heads=2, hidden=16), layout.size, nnx.Rngs(0))
    asked = lesson("posterior_mean", (1, 2))
    plain, further = (
        jax.jit(lambda model, some=some: action_loss(model, layout, [some])[0])(model)
        for some in (dataclasses.replace(asked, iterates=()), asked)
    )
    assert further > plain > 0
    zero = dataclasses.replace(asked.target, q=jnp.zeros_like(asked.target.q))
    known = dataclasses.replace(asked, iterates=(zero,))
    assert isinstance(known.iterates[0], Advantage)
    gradient = jax.jit(jax.grad(lambda model: action_loss(model, layout, [known])[0]))(model)
    assert (jnp.abs(gradient.blocks.q[...]).max((1, 2)) > 0).all()


def test_every_loop_of_tied_layers_is_asked_for_the_label_itself(lesson):
    c = base.get_config()
    c.horizon, c.family, c.problem = 4, "random_mdp", dict(discount=0.9)
    c.pretrain.steps = 0
    c.model.update(tied=True, layers=3)
    settings = Settings.from_config(c)
    assert settings.ahead == (4, 4) and settings.is_planned
    found = lesson("posterior_mean", settings.ahead)
    for target in found.iterates:
        np.testing.assert_array_equal(target.q, found.target.q)


@pytest.mark.parametrize(
    "fields, message",
    [
        (dict(fine_tune=dict(teacher="posterior")), "did you mean 'posterior_mean'"),
        (dict(family="icu_sepsis", fine_tune=dict(teacher="posterior_mean")), "icu_sepsis computes no posterior"),
        (dict(family="energy_pomdp", fine_tune=dict(iterates=True)), "need Q-values of states"),
        (dict(fine_tune=dict(iterates=True, labels="tokens")), "need Q-values of states"),
        (dict(model=dict(prefix=True)), "must not see what it predicts, set pretrain.steps to 0"),
        (
            dict(model=dict(prefix=True), pretrain=dict(steps=0), data="log.parquet"),
            "differ in the length of their contexts",
        ),
        (dict(model=dict(tied=True)), "model.tied: every loop .* pretrain.steps and fine_tune.lora_rank to 0"),
        (dict(model=dict(tied=True), family="energy_pomdp"), "model.tied need Q-values of states"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(fields, message):
    c = base.get_config()
    c.update(fields)
    with pytest.raises(UserError, match=message):
        Settings.from_config(c)
