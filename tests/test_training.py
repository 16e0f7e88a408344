"""Training: objectives, one device against eight, checkpoints that are cut short, losses that blow up."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from icdm.errors import Stopped, UserError
from icdm.learning.checkpoint import Checkpoints
from icdm.learning.objectives import LabelConfig, Lesson, action_loss, next_token_loss, target_of
from icdm.learning.sources import FreshTasks, Labelled, Mixture, Played, TaskPool, held_out, labelled_tasks
from icdm.learning.train import TrainConfig, train
from icdm.models.placement import place_state
from icdm.models.transformer import ModelConfig, Transformer
from icdm.oracles.certify import OracleConfig
from icdm.problems.family import make_family
from icdm.problems.policy import TableOracle
from icdm.sharding import make_mesh
from icdm.trajectories.collect import LABELLING, ContextConfig, draw_tasks, record_with_context
from icdm.trajectories.layouts import make_layout
from icdm.trajectories.prompt import action_logits, encode

FAMILY = make_family("random_mdp", states=3, actions=2, horizon=3)
CONTEXT = ContextConfig(2, "uniform")
TINY = ModelConfig(width=16, layers=1, heads=2, kv_heads=2, hidden=16)


@pytest.fixture(scope="module")
def layout():
    return make_layout("transition", FAMILY, reward_bins=2)


@pytest.fixture(scope="module")
def trajectories():
    tasks = draw_tasks(FAMILY, jax.random.key(0), 16)
    return record_with_context(FAMILY, tasks, jnp.arange(16), jax.random.key(1), CONTEXT, "uniform")


def make_model(layout):
    return Transformer(TINY, layout.size, nnx.Rngs(0))


def test_action_losses_by_hand(layout, trajectories):
    """Each label against a plain loop over the steps where the model acts, the empty context included."""
    some = dataclasses.replace(trajectories, valid=trajectories.valid.at[:, 1, 2].set(False))
    model = make_model(layout)
    logits = np.asarray(action_logits(model, layout, encode(layout, some).decisions), np.float64)
    q = np.asarray(some.q, np.float64)
    losses = {"argmax": [], "boltzmann": [], "advantage": []}
    for index in np.argwhere(np.asarray(some.valid)):
        z, value = logits[tuple(index)], q[tuple(index)]
        log_p = z - np.log(np.exp(z).sum())
        label = np.exp(value / 0.5) / np.exp(value / 0.5).sum()
        losses["argmax"].append(-log_p[value.argmax()])
        losses["boltzmann"].append(-(label * log_p).sum())
        losses["advantage"].append((((z - z.mean()) - (value - value.mean()) / 0.5) ** 2).mean())
    for labels, expected in losses.items():
        lesson = Lesson(some, target_of(LabelConfig(labels, 0.5), some))
        found, positions = action_loss(model, layout, [lesson])
        np.testing.assert_allclose(found, np.mean(expected), rtol=1e-4)
        assert positions == 16 * (3 * 4 - 1)
    assert len(losses["argmax"]) == 16 * (3 * 3 - 1)


@pytest.mark.parametrize("name", ["transition", "interleaved"])
def test_next_token_loss_by_hand(name, trajectories):
    layout = make_layout(name, FAMILY, reward_bins=2)
    model = make_model(layout)
    some = dataclasses.replace(trajectories, valid=trajectories.valid.at[:, 0, 2].set(False))
    tokens = encode(layout, some).tokens
    hidden = model(tokens).hidden
    losses = []
    for part, target in layout.targets(tokens):
        logits = np.asarray(model.logits(hidden, part), np.float64)
        log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        for b in range(16):
            for i in range(tokens.valid.shape[1] - 1):
                if tokens.valid[b, i] and tokens.valid[b, i + 1] and target[b, i + 1] >= 0:
                    losses.append(-log_p[b, i, target[b, i + 1]])
    found, positions = next_token_loss(model, layout, [Lesson(some, None)])
    np.testing.assert_allclose(found, np.mean(losses), rtol=1e-4)
    assert positions == tokens.valid.sum()


def test_the_loss_of_several_lessons_is_that_of_all_their_rows(layout, trajectories):
    """Lessons of other lengths and with other targets share a batch; each target counts as often as it is there."""
    model = make_model(layout)
    short = jax.tree.map(lambda x: x[:4, :2], trajectories)
    lessons = [
        Lesson(trajectories, target_of(LabelConfig("advantage", 0.5), trajectories)),
        Lesson(short, target_of(LabelConfig("argmax"), short)),
    ]
    parts = [(float(action_loss(model, layout, [lesson])[0]), lesson.target.counts.sum()) for lesson in lessons]
    together = action_loss(model, layout, lessons)[0]
    expected = sum(loss * n for loss, n in parts) / sum(n for _, n in parts)
    np.testing.assert_allclose(together, expected, rtol=1e-5)


def test_a_mixture_gives_the_rows_of_its_sources():
    mesh, key = make_mesh(), jax.random.key(0)
    played = Played("uniform", 2, 0.0)
    sources = [FreshTasks(FAMILY, played, 8, jax.random.fold_in(key, i), mesh, LABELLING) for i in range(2)]
    mixture = Mixture(sources)
    lessons = mixture.lessons(mixture.batch(3), key)
    for i, (source, lesson) in enumerate(zip(sources, lessons)):
        own = source.lessons(source.batch(3), jax.random.fold_in(key, i))[0]
        jax.tree.map(np.testing.assert_array_equal, lesson, own)
    assert lessons[0].trajectories.action.shape == (8, 2, 3) and lessons[0].target is None


def test_where_labelled_rows_come_from():
    """Fresh tasks, but a pool where one is asked for or the family has only so many tasks."""
    recorder = Labelled(CONTEXT, "uniform", LabelConfig())
    arguments = recorder, 8, jax.random.key(0), make_mesh(), LABELLING
    assert labelled_tasks(FAMILY, *arguments) == FreshTasks(FAMILY, *arguments)
    pool = labelled_tasks(FAMILY, *arguments, pool=5)
    assert pool == TaskPool(FAMILY, *arguments, n_tasks=5)
    tasks, task_B = pool.batch(0)
    assert tasks.n == 5 and task_B.shape == (8,)
    again, _ = pool.batch(1)
    jax.tree.map(np.testing.assert_array_equal, tasks, again)


def source_of(mesh, rows=16):
    recorder = Labelled(CONTEXT, "uniform", LabelConfig("boltzmann", 0.1))
    return FreshTasks(FAMILY, recorder, rows, jax.random.key(5), mesh, LABELLING)


def loss_of(layout, source):
    def loss(model, batch, key):
        return action_loss(model, layout, source.lessons(batch, key))

    return loss


def run_training(layout, directory, config, model_devices=1, stop=lambda: False, say=print, validate=None):
    mesh = make_mesh(model_devices)
    source = source_of(mesh, config.batch)
    lines = []
    checkpoints = Checkpoints(directory, say)
    try:
        model = train(
            make_model(layout),
            loss_of(layout, source),
            source.batch,
            config,
            jax.random.key(6),
            place=functools.partial(place_state, mesh),
            checkpoints=checkpoints,
            log=lambda step, **numbers: lines.append((step, numbers)),
            stop=stop,
            validate=validate,
        )
    finally:
        checkpoints.close()
    return model, lines


CONFIG = TrainConfig(steps=12, batch=16, warmup=2, checkpoint_every=4, log_every=4)


def leaves(model):
    return [np.asarray(x) for x in jax.tree.leaves(model)]


@pytest.mark.parametrize("rank", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_stopped_and_resumed_is_bit_identical(layout, tmp_path, rank):
    config = dataclasses.replace(CONFIG, lora_rank=rank)
    whole, lines = run_training(layout, tmp_path / "whole", config)
    assert [step for step, _ in lines] == [0, 1, 4, 8, 12]
    asked = iter([False] * 6 + [True] * 100)
    with pytest.raises(Stopped, match="step 7 of 12"):
        run_training(layout, tmp_path / "parts", config, stop=lambda: next(asked))
    resumed, lines = run_training(layout, tmp_path / "parts", config)
    assert lines[0] == (7, {})
    for a, b in zip(leaves(whole), leaves(resumed)):
        np.testing.assert_array_equal(a, b)


@pytest.mark.slow
def test_training_ends_where_held_out_tasks_say_so(layout, tmp_path):
    """The loss there is lowest at the second look; after two looks without a lower one the weights of that look are the
    result, also when the run was stopped between them, and when it is started again after its end."""
    config = dataclasses.replace(CONFIG, steps=60, checkpoint_every=5, validate_every=2, patience=2)
    seen = []

    def validate(model):
        seen.append(leaves(model))
        return [3.0, 1.0, 2.0, 1.5, 0.0][len(seen) - 1]

    found, lines = run_training(layout, tmp_path / "whole", config, validate=validate)
    assert len(seen) == 4 and [step for step, numbers in lines if numbers] == [4, 8]
    assert [numbers["validation_loss"] for _, numbers in lines if numbers] == [1.0, 1.5]
    for a, b, first in zip(leaves(found), seen[1], seen[0]):
        np.testing.assert_array_equal(a, b)
        assert (a != first).any()
    again, _ = run_training(layout, tmp_path / "whole", config, validate=validate)
    assert len(seen) == 4
    seen.clear()
    asked = iter([False] * 4 + [True] * 100)
    with pytest.raises(Stopped, match="step 5 of 60"):
        run_training(layout, tmp_path / "parts", config, stop=lambda: next(asked), validate=validate)
    resumed, _ = run_training(layout, tmp_path / "parts", config, validate=validate)
    for a, b, c in zip(leaves(found), leaves(again), leaves(resumed)):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(a, c)


@pytest.mark.parametrize("hides_state", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_held_out_tasks_are_no_rows_of_training(hides_state):
    family = make_family("tiger", horizon=2) if hides_state else FAMILY
    recorder = Labelled(CONTEXT, "uniform", LabelConfig())
    pool = labelled_tasks(family, recorder, 64, jax.random.key(0), make_mesh(), OracleConfig(0.5, 4), pool=5)
    shown, kept = held_out(pool, 2)
    drawn = []
    for part in (shown, kept):
        lesson = part.lessons(part.batch(0), jax.random.key(1))[0]
        drawn.append({q.tobytes() for q in np.asarray(lesson.trajectories.q[:, 0, -1])})
    assert (shown.among, kept.among) == ((0, 3), (3, 5))
    if not hides_state:  # Q of the last step names the task and the state
        assert drawn[0] and drawn[1] and not drawn[0] & drawn[1]


def test_adapters_leave_the_other_weights_alone(layout, tmp_path):
    trained, _ = run_training(layout, tmp_path, dataclasses.replace(CONFIG, lora_rank=2))
    model = trained.merged()
    start = make_model(layout)
    np.testing.assert_array_equal(model.embed[...], start.embed[...])
    assert (np.asarray(model.blocks.q[...]) != np.asarray(start.blocks.q[...])).any()


def test_a_loss_that_is_not_finite_names_the_step_and_keeps_the_good_checkpoint(layout, tmp_path):
    mesh = make_mesh()
    source = source_of(mesh)
    checkpoints = Checkpoints(tmp_path)

    def batch(step):
        tasks, task_B = source.batch(step)
        poison = jnp.float32(jnp.nan if step == 9 else 1.0)
        return dataclasses.replace(tasks, oracle=TableOracle(tasks.oracle.table * poison)), task_B

    with pytest.raises(UserError, match="at step 10"):
        train(
            make_model(layout),
            loss_of(layout, source),
            batch,
            CONFIG,
            jax.random.key(6),
            place=functools.partial(place_state, mesh),
            checkpoints=checkpoints,
            log=lambda *a, **k: None,
        )
    assert checkpoints.manager.latest_step() == 8


def damage(directory, how):
    files = [path for path in directory.rglob("*") if path.is_file()]
    largest = max(files, key=lambda path: path.stat().st_size)
    if how == "emptied":
        for path in files:
            path.write_bytes(b"")
    elif how == "cut":
        largest.write_bytes(largest.read_bytes()[: largest.stat().st_size // 2])
    else:
        content = bytearray(largest.read_bytes())
        content[len(content) // 2] ^= 0xFF
        largest.write_bytes(bytes(content))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of the reader that gave up
@pytest.mark.parametrize("how", ["emptied", "cut", "flipped"])
def test_a_damaged_checkpoint_falls_back_to_the_one_before(tmp_path, how):
    tree = {"w": jnp.arange(3000.0), "step": jnp.int32(0)}
    checkpoints = Checkpoints(tmp_path / "phase")
    checkpoints.save(1, tree)
    checkpoints.save(2, {"w": tree["w"] * 3.7, "step": jnp.int32(2)})
    checkpoints.close()
    damage(tmp_path / "phase" / "2", how)
    said = []
    checkpoints = Checkpoints(tmp_path / "phase", said.append)
    step, found = checkpoints.restore(tree)
    assert step == 1
    np.testing.assert_array_equal(found["w"], tree["w"])
    assert len(said) == 1 and "damaged" in said[0]
    checkpoints.save(2, tree)  # the place is free again
    assert checkpoints.restore(tree)[0] == 2
    checkpoints.close()


def test_a_checkpoint_that_does_not_fit_or_may_not_be_read_is_not_set_aside(tmp_path, monkeypatch):
    checkpoints = Checkpoints(tmp_path / "phase")
    checkpoints.save(1, {"w": jnp.arange(4.0)})
    with pytest.raises(UserError, match=r"\['w'\] is \(4,\) there, \(5,\) by the config"):
        checkpoints.restore({"w": jnp.zeros(5)})
    with pytest.raises(UserError, match="is nothing there"):
        checkpoints.restore({"v": jnp.zeros(4)})

    def out_of_memory(*_, **__):
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints.manager, "restore", out_of_memory)
        with pytest.raises(UserError, match="cannot be read: MemoryError"):
            checkpoints.restore({"w": jnp.zeros(4)})
    assert checkpoints.restore({"w": jnp.zeros(4)})[0] == 1
    checkpoints.close()


def test_a_full_disk_leaves_the_previous_checkpoint(tmp_path):
    """The limit on file sizes stands in for a full disk: writing fails in the middle, with an OSError."""
    import subprocess
    import sys

    code = f"""
import resource, jax, jax.numpy as jnp, pathlib
from icdm.errors import one_line_errors
from icdm.learning.checkpoint import Checkpoints
checkpoints = Checkpoints(pathlib.Path({str(tmp_path / "phase")!r}))
tree = {{"w": jax.random.normal(jax.random.key(0), (200_000,))}}
checkpoints.save(1, tree)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
with one_line_errors("test"):
    checkpoints.save(2, tree)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 2, done.stderr
    assert "could not save the checkpoint of step 2" in done.stderr and "goes on from step 1" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    checkpoints = Checkpoints(tmp_path / "phase")
    step, _ = checkpoints.restore({"w": jnp.zeros(200_000)})
    assert step == 1
    checkpoints.close()
