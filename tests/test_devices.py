"""Several devices compute what one does; they need a process of their own, since JAX counts them when it starts."""

import os
import signal
import subprocess
import sys

import jax
import numpy as np
import optax
import pytest
import safetensors.numpy
from commands import run, start
from test_pipeline import TINY, wait_for_steps

from icdm.errors import UserError
from icdm.models.placement import AXES, check_divides, state_shardings
from icdm.models.transformer import ModelConfig, Transformer
from icdm.sharding import make_mesh

CODE = """
import jax, jax.numpy as jnp, numpy as np, optax
jax.config.update("jax_num_cpu_devices", 8)
from flax import nnx
from icdm.learning.objectives import LabelConfig, action_loss
from icdm.learning.sources import FreshTasks, Labelled
from icdm.learning.train import TrainState, make_update
from icdm.models.transformer import ModelConfig, Transformer
from icdm.problems.family import make_family
from icdm.models.placement import place_state
from icdm.trajectories.collect import LABELLING, ContextConfig
from icdm.trajectories.layouts import make_layout

family = make_family("random_mdp", states=3, actions=2, horizon=3)
layout = make_layout("transition", family, reward_bins=2)
recorder = Labelled(ContextConfig(2, "uniform"), "uniform", LabelConfig("boltzmann", 0.1))
optimizer = optax.adam(0.01)
found = []
for devices, model_devices, fsdp in ((1, 1, False), (8, 1, False), (8, 2, False), (8, 8, False), (8, 2, True)):
    shape = (devices // model_devices, model_devices)
    types = (jax.sharding.AxisType.Auto,) * 2
    mesh = jax.make_mesh(shape, ("data", "model"), types, devices=jax.devices()[:devices])
    source = FreshTasks(family, recorder, 16, jax.random.key(5), mesh, LABELLING)
    model = Transformer(ModelConfig(width=16, layers=1, heads=2, kv_heads=2, hidden=16), layout.size, nnx.Rngs(0))
    key = jax.random.key_data(jax.random.key(0))
    state = place_state(mesh, TrainState(model, optimizer.init(model), jnp.int32(0), key), fsdp)
    held = state.trainable.blocks.o[...].addressable_shards[0].data.size
    assert held * model_devices * (devices // model_devices if fsdp else 1) == model.blocks.o.size
    def loss(model, batch, key):
        return action_loss(model, layout, source.lessons(batch, key))

    update = make_update(loss, optimizer)
    for step in range(2):
        batch = source.batch(step)
        with jax.set_mesh(mesh):
            state, (loss, _, _) = update(state, None, batch)
    found.append((float(loss), [np.asarray(x) for x in jax.tree.leaves(state.trainable)]))
for loss, weights in found[1:]:
    np.testing.assert_allclose(loss, found[0][0], rtol=1e-5)
    for a, b in zip(weights, found[0][1]):
        np.testing.assert_allclose(a, b, atol=1e-5)
print(jax.device_count(), "devices agree")
"""


@pytest.mark.slow
def test_eight_devices_compute_what_one_does():
    """The same updates on meshes of 8 x 1, 4 x 2 and 1 x 8, rows by weights, and on a single device."""
    done = subprocess.run(
        [sys.executable, "-c", CODE],
        capture_output=True,
        text=True,
        timeout=500,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
    )
    assert done.returncode == 0, done.stderr
    assert "8 devices agree" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(("devices", "mesh"), [(1, 1), (2, 2), (4, 2)])
def test_a_run_of_eight_devices_goes_on_with_fewer(devices, mesh, tmp_path):
    command = ["experiments.run", *TINY, "--config.pretrain.steps=0", "--config.fine_tune.steps=400"]
    process = start(*command, f"--workdir={tmp_path}/run", devices=8)
    wait_for_steps(tmp_path / "run", "fine_tune", 10, process)
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 143, said
    resumed = run(*command, f"--workdir={tmp_path}/run", devices=devices)
    assert resumed.returncode == 0 and "going on from step" in resumed.stdout, resumed.stderr
    assert run(*command, f"--workdir={tmp_path}/alone", f"--config.mesh_model={mesh}", devices=devices).returncode == 0
    resumed, alone = (safetensors.numpy.load_file(tmp_path / name / "weights.safetensors") for name in ("run", "alone"))
    for name, weight in alone.items():
        np.testing.assert_allclose(resumed[name], weight, atol=2e-3, err_msg=name)


CONFIG = ModelConfig(width=32, layers=2, heads=4, kv_heads=2, hidden=48, mixing=1, biases=True)


def test_every_matrix_and_its_moments_are_split_as_the_table_says():
    model = Transformer.described(CONFIG, 11)
    mesh = make_mesh()
    found = state_shardings(mesh, jax.eval_shape(optax.adam(0.1).init, model), fsdp=True)
    leaves = {jax.tree_util.keystr(path): leaf.spec for path, leaf in jax.tree_util.tree_leaves_with_path(found)}
    for name in AXES:
        moments = [tuple(spec) for path, spec in leaves.items() if path.endswith(f".{name}.value")]
        assert len(moments) == 2 and all(spec[-len(AXES[name]) :] == AXES[name] for spec in moments), name
    assert all(not any(spec) for path, spec in leaves.items() if "norm" in path or "count" in path)


@pytest.mark.parametrize(
    ("devices", "fsdp", "message"),
    [
        ({"data": 1, "model": 3}, False, "mesh_model 3 does not divide"),
        ({"data": 5, "model": 1}, True, "mesh_fsdp: 5 devices"),
    ],
)
def test_meshes_that_do_not_divide_the_model(devices, fsdp, message):
    check_divides(CONFIG, {"data": 5, "model": 2}, False)
    with pytest.raises(UserError, match=message):
        check_divides(CONFIG, devices, fsdp)
