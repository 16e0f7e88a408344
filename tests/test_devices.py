"""Several devices compute what one does; they need a process of their own, since JAX counts them when it starts."""

import os
import subprocess
import sys

import pytest

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
optimizer = optax.sgd(0.1)
found = []
for devices, model_devices in ((1, 1), (8, 2)):
    shape = (devices // model_devices, model_devices)
    types = (jax.sharding.AxisType.Auto,) * 2
    mesh = jax.make_mesh(shape, ("data", "model"), types, devices=jax.devices()[:devices])
    source = FreshTasks(family, recorder, 16, jax.random.key(5), mesh, LABELLING)
    model = Transformer(ModelConfig(width=16, layers=1, heads=2, kv_heads=2, hidden=16), layout.size, nnx.Rngs(0))
    key = jax.random.key_data(jax.random.key(0))
    state = place_state(mesh, TrainState(model, optimizer.init(model), jnp.int32(0), key))
    def loss(model, batch, key):
        return action_loss(model, layout, source.lessons(batch, key))

    update = make_update(loss, optimizer)
    for step in range(2):
        state, (loss, _, _) = update(state, None, source.batch(step))
    found.append((float(loss), [np.asarray(x) for x in jax.tree.leaves(state.trainable)]))
for loss, weights in found[1:]:
    np.testing.assert_allclose(loss, found[0][0], rtol=1e-5)
    for a, b in zip(weights, found[0][1]):
        np.testing.assert_allclose(a, b, atol=1e-5)
print(jax.device_count(), "devices agree")
"""


@pytest.mark.slow
def test_eight_devices_compute_what_one_does():
    """The same updates on a mesh of 4 x 2, rows by columns of weights, and on a single device."""
    done = subprocess.run(
        [sys.executable, "-c", CODE],
        capture_output=True,
        text=True,
        timeout=500,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
    )
    assert done.returncode == 0, done.stderr
    assert "8 devices agree" in done.stdout
