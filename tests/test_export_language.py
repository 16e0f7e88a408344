"""What a run with a language model exports: token ids, adapters for peft, a merged model for transformers."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
from small_language_model import write_language_model

from experiments.configs import language_energy
from icdm.cli import main
from icdm.logs.describe import describe
from icdm.published.model import load, open_published
from icdm.published.peft import read_adapter
from icdm.runs.phases import Phases
from icdm.runs.run import Run
from icdm.trajectories.layouts.vocabulary import Tokens


def trained(directory, **fine_tune):
    """The directory of a run that trained a small language model."""
    write_language_model(directory / "small.gguf")
    c = language_energy.get_config()
    c.weights, c.horizon, c.context.episodes = str(directory / "small.gguf"), 2, 1
    c.weights_drawn = not fine_tune["lora_rank"]
    c.fine_tune.update(steps=2, batch=4, pool=4, warmup=0, checkpoint_every=2, **fine_tune)
    Phases(Run.claim(directory / "run", c)).train_all()
    return directory / "run"


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    """The directory of a run that tuned adapters."""
    return trained(tmp_path_factory.mktemp("tuned"), lora_rank=2, lora_alpha=3.0)


def logits(model, ids):
    tokens = Tokens(jnp.asarray(ids)[..., None], jnp.zeros((*ids.shape, 0)), jnp.ones(ids.shape, bool))
    return model.logits(model(tokens).hidden)


def test_token_ids_are_those_of_the_text(tuned, tmp_path):
    tokenizer = open_published(Run.open(tuned).config["weights"]).tokenizer
    for form in ("tokens", "prompt-completion"):
        main(["export", str(tuned), str(tmp_path / f"{form}.jsonl"), "--format", form, "--rows", "6"])
    rows, decisions = (
        [json.loads(line) for line in (tmp_path / f"{form}.jsonl").read_text().splitlines()]
        for form in ("tokens", "prompt-completion")
    )
    assert len(rows) == 6 and len(decisions) == 6 * 2 * 2
    for i, row in enumerate(rows):
        for decision in decisions[4 * i : 4 * i + 4]:
            ids = tokenizer.encode(decision["prompt"]).ids
            assert row["input_ids"][: len(ids)] == ids
            assert [row["labels"][len(ids)]] == tokenizer.encode(decision["completion"]).ids
        assert sum(label != -100 for label in row["labels"]) == 4
    found = describe(tmp_path / "tokens.jsonl")
    assert found["steps"] == 6 * 2 * 2 and found["rows_with_oracle_action"] == 6 * 2 * 2 and not found["defects"]


def test_adapters_and_merged_weights_are_the_tuned_model(tuned, tmp_path, capsys):
    main(["export", str(tuned), "--adapter", str(tmp_path / "adapter"), "--merged", str(tmp_path / "merged")])
    assert "for peft" in capsys.readouterr().out
    run = Run.open(tuned)
    model = run.model("fine_tuned")
    assert max(float(jnp.abs(pair["b"]).max()) for pair in model.adapters.factors.values()) > 0
    ids = np.random.default_rng(0).integers(0, 256, (2, 40))
    expected = logits(model, ids)
    merged = open_published(str(tmp_path / "merged"))
    np.testing.assert_allclose(logits(load(merged, merged.config), ids), expected, atol=1e-4)
    adapters = read_adapter(tmp_path / "adapter", run.settings.model)
    hidden = run.start()(
        Tokens(jnp.asarray(ids)[..., None], jnp.zeros((*ids.shape, 0)), jnp.ones(ids.shape, bool)), adapters=adapters
    ).hidden
    np.testing.assert_allclose(model.logits(hidden), expected, atol=1e-4)


@pytest.mark.slow
def test_a_model_trained_from_random_weights_is_kept_and_exported(tmp_path):
    directory = trained(tmp_path, lora_rank=0)
    main(["export", str(directory), "--merged", str(tmp_path / "merged")])
    merged = open_published(str(tmp_path / "merged"))
    ids = np.random.default_rng(0).integers(0, 256, (2, 40))
    expected = logits(Run.open(directory).model("fine_tuned"), ids)
    np.testing.assert_allclose(logits(load(merged, merged.config), ids), expected, atol=1e-5)


@pytest.mark.parametrize(
    "changes, flag, message",
    [
        ({"weights_drawn": True}, "--adapter", "did not fine-tune published weights themselves: use --merged"),
        ({"fine_tune": {"lora_rank": 0}}, "--adapter", "has trained no adapters"),
        ({}, "--merged", "has not got there yet"),
    ],
)
def test_what_a_run_does_not_have_is_told_in_one_line(changes, flag, message, tuned, tmp_path, capsys):
    config = json.loads((tuned / "config.json").read_text())
    for name, value in changes.items():
        config[name] = config[name] | value if isinstance(value, dict) else value
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(SystemExit) as stopped:
        main(["export", str(tmp_path), flag, str(tmp_path / "out")])
    error = capsys.readouterr().err
    assert stopped.value.code == 2 and message in error and error.count("\n") == 1, error
    assert not (tmp_path / "out").exists()
