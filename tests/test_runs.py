"""A run's directory: opened without training, whichever version wrote it, and never changed by a reader."""

import json
import pathlib
import shutil

import jax
import numpy as np
import pytest
import safetensors.numpy

from experiments.configs import base, demo
from experiments.experiment import load_results
from icdm.errors import UserError
from icdm.evaluation.unseen import draw_unseen
from icdm.evaluation.value import measure
from icdm.models.policy import TransformerReader
from icdm.runs.phases import Phases
from icdm.runs.run import EVALUATION_KEY, Run
from icdm.runs.settings import as_json, completed, defaults
from icdm.sharding import make_mesh

OLD = pathlib.Path(__file__).parent / "data" / "old_run"  # written before fields were added, renamed and reshaped


def snapshot(directory):
    return {path: path.read_bytes() for path in sorted(directory.rglob("*")) if path.is_file()}


def test_a_run_that_an_earlier_version_wrote_gives_the_same_numbers():
    before = snapshot(OLD)
    run, mesh = Run.open(OLD), make_mesh()
    s = run.settings
    assert s.test_oracle.points == 112 and s.fine_tune.lora.alpha == 16.0
    key = jax.random.fold_in(run.key, EVALUATION_KEY)
    unseen = draw_unseen(s.family, s.context, s.evaluation, s.test_oracle, key)
    values = np.load(OLD / "values.npz")
    np.testing.assert_allclose(unseen.certified.lower_N, values["optimal"])
    for name in ("in_context", "fine_tuned"):
        found, _ = measure(unseen, TransformerReader(run.model(name), run.layout), s.evaluation, mesh)
        np.testing.assert_allclose(found, values[f"policy/{name}"], atol=1e-6)
    assert snapshot(OLD) == before


def test_the_same_command_goes_on_with_a_run_of_an_earlier_version(tmp_path):
    """New fields take their defaults, a paper's figures beside the table are no other experiment."""
    directory = tmp_path / "run"
    shutil.copytree(OLD, directory)
    c = demo.get_config()
    c.horizon = 2
    c.pretrain.mixture = ("energy:horizon=2",)
    for phase in (c.pretrain, c.fine_tune):
        phase.update(steps=2, batch=4, log_every=1)
    c.model.update(width=4, heads=1, kv_heads=1, hidden=4, layers=1)
    c.evaluation.update(tasks=6, episodes=1)
    assert load_results(directory, c)["family"] == "energy"
    run = Run.claim(directory, c)
    resumed = Phases(run).train_all()["fine_tuned"]  # nothing is left to train
    jax.tree.map(np.testing.assert_array_equal, resumed, run.model("fine_tuned"))
    c.seed = 1
    assert load_results(directory, c) is None
    with pytest.raises(UserError, match=r"belongs to another config: seed \(1 now, 0 there\)"):
        Run.claim(directory, c)


def test_fields_that_were_renamed_are_understood():
    old = json.loads((OLD / "config.json").read_text())
    assert "oracle" in old and "single_steps" in old and "label_oracle" not in old
    new = completed(old)
    assert new["test_oracle"]["points"] == old["oracle"]["points"] and "single_steps" not in new
    assert completed(old | {"single_steps": True})["layout"] == "single_steps"
    assert set(new) == set(defaults()) and completed(new) == new


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of two phases, the second with adapters; (run, its models)."""
    c = base.get_config()
    c.horizon = 2
    c.context.episodes = 1
    c.model.update(width=8, layers=1, heads=1, kv_heads=1, hidden=8)
    for phase in (c.pretrain, c.fine_tune):
        phase.update(steps=2, batch=8, log_every=1, checkpoint_every=2)
    c.fine_tune.update(lora_rank=2, lora_targets=("q", "down"))
    c.pretrain.mixture = ("energy:horizon=2",)
    run = Run.claim(tmp_path_factory.mktemp("run"), c)
    return run, Phases(run).train_all()


def test_models_by_name_are_those_that_were_trained(trained, tmp_path):
    run, models = trained
    before = snapshot(run.directory)
    opened = Run.open(run.directory)
    assert list(opened.trained) == ["in_context", "fine_tuned"] == list(models)
    for name, model in models.items():
        jax.tree.map(np.testing.assert_array_equal, opened.model(name), model)
    start, pretrained, tuned = (opened.model(name).blocks for name in ("start", "in_context", "fine_tuned"))
    assert (start.k[...] != pretrained.k[...]).any()
    assert (pretrained.k[...] == tuned.k[...]).all() and (pretrained.q[...] != tuned.q[...]).any()
    assert snapshot(run.directory) == before
    copy = tmp_path / "copy"  # without the weights' file, they are read from the checkpoints
    shutil.copytree(run.directory, copy)
    (copy / "weights.safetensors").unlink()
    read = Run.open(copy).model("fine_tuned")
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), read, models["fine_tuned"])


def test_the_weights_file_alone_is_enough(trained, tmp_path):
    run, models = trained
    for name in ("config.json", "weights.safetensors"):
        shutil.copy(run.directory / name, tmp_path / name)
    jax.tree.map(np.testing.assert_array_equal, Run.open(tmp_path).model("fine_tuned"), models["fine_tuned"])
    named = safetensors.numpy.load_file(tmp_path / "weights.safetensors")
    np.testing.assert_array_equal(named["blocks.q"], models["fine_tuned"].blocks.q[...])
    with pytest.raises(UserError, match="has not got there yet"):
        Run.open(tmp_path).model("in_context")


def test_a_checkpoint_that_is_damaged_is_skipped_and_stays_where_it_is(trained, tmp_path, capsys):
    run, _ = trained
    shutil.copytree(run.directory, tmp_path / "run")
    (tmp_path / "run" / "weights.safetensors").unlink()
    for path in (tmp_path / "run" / "checkpoints" / "fine_tune").rglob("*"):
        if path.is_file():
            path.write_bytes(b"")
    before = snapshot(tmp_path / "run")
    with pytest.raises(UserError, match="holds no checkpoint"):
        Run.open(tmp_path / "run").model("fine_tuned")
    assert snapshot(tmp_path / "run") == before and "it is skipped" in capsys.readouterr().err


@pytest.mark.parametrize("kept", ["weights.safetensors", "checkpoints"])
def test_a_config_of_other_shapes_is_no_damage(trained, tmp_path, kept):
    """A reader says so in one line, and nothing is renamed; neither is anything when training is to go on."""
    run, _ = trained
    shutil.copytree(run.directory, tmp_path / "run")
    if kept == "checkpoints":
        (tmp_path / "run" / "weights.safetensors").unlink()
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    config["model"]["width"] = 16
    config["fine_tune"]["lora_rank"] = 0
    (tmp_path / "run" / "config.json").write_text(json.dumps(config))
    before = snapshot(tmp_path / "run")
    for reads in (Run.open(tmp_path / "run").model, Phases(Run.open(tmp_path / "run")).train_all):
        with pytest.raises(UserError, match=r"has other shapes than config.json asks for: .* by the config"):
            reads()
        assert {p: b for p, b in snapshot(tmp_path / "run").items() if p.name != "metrics.jsonl"} == {
            p: b for p, b in before.items() if p.name != "metrics.jsonl"
        }


def test_directories_that_hold_no_run(tmp_path):
    with pytest.raises(UserError, match="is not a run"):
        Run.open(tmp_path)
    for content in ("{", "[1]"):
        (tmp_path / "config.json").write_text(content)
        with pytest.raises(UserError, match="is damaged: write it anew"):
            Run.open(tmp_path)
        with pytest.raises(UserError, match="choose another directory"):
            Run.claim(tmp_path, base.get_config())


def test_a_config_and_its_json_are_the_same_settings():
    c = demo.get_config()
    assert Run(pathlib.Path(), completed(as_json(c))).settings == Run(pathlib.Path(), as_json(c)).settings
