"""The compiled programs of a run, traced for devices that need not be there."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding

from icdm.evaluation.unseen import draw_unseen
from icdm.evaluation.value import play
from icdm.learning.train import fresh_state, make_update
from icdm.models.placement import check_divides, state_shardings
from icdm.models.policy import TransformerPolicy
from icdm.oracles.backward_induction import plan
from icdm.oracles.belief import belief_model
from icdm.oracles.point_based import solve_at_points
from icdm.runs.data import open_data
from icdm.runs.phases import BEHAVING, Phase, fine_tuning, pretraining
from icdm.runs.run import Run
from icdm.sharding import check_rows, make_mesh, row_sharding
from icdm.trajectories.collect import draw_problems

FEW = 2  # tasks that are drawn to see what shapes their arrays have


class Program(NamedTuple):
    """A program before it is compiled.

    Attributes:
      jaxpr: what it does, on all chips together.
    """

    jaxpr: Any
    lowered: jax.stages.Lowered

    @classmethod
    def of(cls, traced: jax.stages.Traced) -> "Program":
        return cls(traced.jaxpr, traced.lower())


def programs(run: Run, mesh: jax.sharding.Mesh) -> dict[str, Callable[[], Program]]:
    """What makes each program of a run with the run's own shardings for the devices of the mesh, by its name:

    pretrain and fine_tune, a training step each; rollout, the episodes of an evaluation side by side; oracle, which
    solves the evaluation's tasks in float64 (of problems with hidden states: the backups at a set of beliefs).

    Raises:
      UserError: rows or weights that the mesh does not divide.
    """
    s = run.settings
    check_divides(s.model, mesh.shape, s.mesh_fsdp)
    here = make_mesh()  # draws the rows whose shapes count
    makers: dict[str, Callable[[], Program]] = {}
    if s.pretrain.steps:
        check_rows(mesh, "pretrain rows of each family", s.pretrain.batch // len(s.pretrain_mixture))
        makers["pretrain"] = lambda: _training_step(run, pretraining(run, here), mesh)
    if s.fine_tune.steps:
        check_rows(mesh, "fine_tune.batch", s.fine_tune.batch)
        makers["fine_tune"] = lambda: _training_step(run, fine_tuning(run, open_data(run, here), here), mesh)
    return makers | {"rollout": lambda: _rollout(run, mesh), "oracle": lambda: _oracle(run, mesh)}


def _training_step(run: Run, phase: Phase, mesh: jax.sharding.Mesh) -> Program:
    config, model = phase.config, run.described()
    update = make_update(phase.loss(run.layout, mesh), config.optimizer(), config.lora)
    state = jax.eval_shape(lambda model: fresh_state(model, config, phase.key), model)
    batch = phase.source.batch(0)
    batch = _at(batch, jax.tree.map(lambda leaf: NamedSharding(mesh, leaf.sharding.spec), batch))
    frozen = _weights_at(mesh, run, model) if config.lora_rank else None
    return Program.of(update.trace(_weights_at(mesh, run, state), frozen, batch))


def _rollout(run: Run, mesh: jax.sharding.Mesh) -> Program:
    s = run.settings
    few = dataclasses.replace(s.evaluation, tasks=FEW, episodes=1)
    unseen = draw_unseen(s.family, s.context, few, BEHAVING, jax.random.key(0))
    n_tasks = s.family.n_tasks or s.evaluation.tasks
    rows = min(s.evaluation.rows, n_tasks * s.evaluation.episodes)
    problem = _everywhere(mesh, _resized(unseen.world.problem, n_tasks))
    row = jax.ShapeDtypeStruct((rows,), jnp.int32)
    task_B, context = _at_rows(mesh, (row, _resized(unseen.context, rows)), rows)
    policy = TransformerPolicy(_weights_at(mesh, run, run.described()), context, s.layout)
    key = _everywhere(mesh, jax.eval_shape(lambda: jax.random.key(0)))
    return Program.of(play.trace(problem, task_B, policy, key))


def _oracle(run: Run, mesh: jax.sharding.Mesh) -> Program:
    s = run.settings
    n_tasks = s.family.n_tasks or s.evaluation.tasks
    problem = draw_problems(s.family, jax.random.key(0), min(FEW, n_tasks))
    with jax.enable_x64(True):
        if not s.family.hides_state:
            return Program.of(jax.jit(plan).trace(_at_rows(mesh, _resized(problem, n_tasks), n_tasks)))
        model = belief_model(problem.nominal)
        states, actions = problem.nominal.n_states, s.family.n_actions
        points = jnp.concatenate([jnp.eye(states), jnp.ones((s.test_oracle.points, states)) / states])
        start = jnp.zeros((len(points), states)), jnp.zeros(len(points)), jnp.zeros((states, actions))
        solve = jax.jit(lambda model: jax.lax.map(lambda one: solve_at_points(one, points, start), model))
        return Program.of(solve.trace(_at_rows(mesh, _resized(model, n_tasks), n_tasks)))


def _resized(tree: Any, n: int):
    """The shapes of the tree's arrays with n entries along their first axis."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct((n, *x.shape[1:]), x.dtype), tree)


def _at_rows(mesh: jax.sharding.Mesh, tree: Any, rows: int):
    return _at(tree, jax.tree.map(lambda _: row_sharding(mesh, rows), tree))


def _weights_at(mesh: jax.sharding.Mesh, run: Run, tree: Any):
    return _at(tree, state_shardings(mesh, tree, run.settings.mesh_fsdp))


def _everywhere(mesh: jax.sharding.Mesh, tree: Any):
    return _at(tree, jax.tree.map(lambda _: NamedSharding(mesh, jax.P()), tree))


def _at(tree: Any, shardings: Any):
    """The shapes of the tree's arrays, placed as the shardings say."""
    return jax.tree.map(lambda x, where: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where), tree, shardings)


def operations(jaxpr: Any) -> float:
    """Operations of all matrix products of a program on all chips together, those in a loop as often as it turns.

    (The count of XLA, `cost_analysis`, has the body of a loop once.) Loops whose end is computed count once.
    """
    total = 0.0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            left, out = equation.invars[0].aval.shape, equation.outvars[0].aval.shape
            total += 2 * math.prod(out) * math.prod(left[axis] for axis in contracted)
        else:
            inner = [
                getattr(part, "jaxpr", part)
                for value in equation.params.values()
                for part in (value if isinstance(value, tuple | list) else (value,))
                if hasattr(part, "eqns") or hasattr(part, "jaxpr")
            ]
            turns = equation.params["length"] if equation.primitive.name == "scan" else 1
            parts = [operations(part) for part in inner]
            total += max(parts) if equation.primitive.name == "cond" else turns * sum(parts)
    return total
