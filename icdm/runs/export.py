"""`icdm export`: what a run learns from, or what it has learned, in the files of other programs."""

import argparse
import pathlib
import runpy
import tempfile
from typing import Any

from icdm.errors import UserError
from icdm.runs.examples import write_examples
from icdm.runs.pretrained import write_pretrained
from icdm.runs.run import Run
from icdm.runs.settings import as_json, completed
from icdm.trajectories.writing import manifest_path


def main(arguments: argparse.Namespace) -> None:
    """Exports what the arguments of `icdm export` name, and says what was written."""
    if not (arguments.out or arguments.adapter or arguments.merged or arguments.model):
        raise UserError("say what to write: OUT.jsonl for examples; --adapter, --merged or --model DIR for a model")
    if arguments.out is not None:
        changes = {"text": arguments.text, "seed": arguments.seed}
        out = pathlib.Path(arguments.out)
        manifest = export_examples(
            arguments.run, out, arguments.format, tasks=arguments.tasks, rows=arguments.rows, **changes
        )
        print(f"{out}: {manifest['lines']:,} examples of {manifest['rows']:,} rows; {manifest_path(out)} says of what")
    if arguments.adapter is not None:
        export_adapter(arguments.run, pathlib.Path(arguments.adapter))
        print(f"{arguments.adapter}: the adapters, for peft")
    if arguments.merged is not None:
        export_merged(arguments.run, pathlib.Path(arguments.merged))
        print(f"{arguments.merged}: the fine-tuned model, for transformers")
    if arguments.model is not None:
        write_pretrained(Run.open(arguments.run), pathlib.Path(arguments.model))
        print(f"{arguments.model}: the fine-tuned model, for icdm decide --model")


def export_examples(
    run_or_config: str | pathlib.Path,
    out: pathlib.Path,
    form: str = "prompt-completion",
    *,
    tasks: int | None = None,
    rows: int | None = None,
    text: str | None = None,
    seed: int | None = None,
) -> dict:
    """Writes what a run or a config fine-tunes on as supervised examples; returns their manifest.

    The label of every decision is the first best action, whatever the config makes of Q-values.

    Args:
      run_or_config: the directory of a run, or a config file.
      form: see `icdm.trajectories.writing`.
      tasks: in place of fine_tune.pool.
      rows: how many; by default as many as fine-tuning reads.
      text, seed: in place of the config's.

    Raises:
      UserError: neither a run nor a config, or see `icdm.runs.examples.write_examples`.
    """
    config = config_of(pathlib.Path(run_or_config))
    if config["fine_tune"]["mixture"]:
        raise UserError(f"{run_or_config} learns from several families: examples are written of one, use --model")
    chosen = {name: value for name, value in (("text", text), ("seed", seed)) if value is not None}
    fine_tune = config["fine_tune"] | {"labels": "argmax"} | ({} if tasks is None else {"pool": tasks})
    if rows is None:
        rows = fine_tune["steps"] * fine_tune["batch"]
    with tempfile.TemporaryDirectory() as scratch:  # where a data file becomes a table
        run = Run(pathlib.Path(scratch), config | chosen | {"fine_tune": fine_tune})
        return write_examples(run, out, form, rows)


def config_of(path: pathlib.Path) -> dict[str, Any]:
    """The config of a run's directory or of a config file, complete.

    Raises:
      UserError: it is neither.
    """
    if path.suffix != ".py":
        return Run.open(path).config
    if not path.is_file():
        raise UserError(f"{path}: no such config")
    found = runpy.run_path(str(path)).get("get_config")
    if found is None:
        raise UserError(f"{path} is no config: it defines no get_config")
    return completed(as_json(found()))


def export_adapter(directory: str | pathlib.Path, out: pathlib.Path) -> None:
    """Writes the adapters of a run as a directory of `peft`.

    Raises:
      UserError: not a run, one without adapters, or one whose adapters stand beside other weights than published ones.
    """
    run = Run.open(directory)
    s = run.settings
    if not s.starts_published or "in_context" in run.trained:
        raise UserError(f"{directory} did not fine-tune published weights themselves: use --merged")
    if not s.fine_tune.lora_rank or "fine_tuned" not in run.trained:
        raise UserError(f"{directory} has trained no adapters: use --merged")
    from icdm.published.peft import write_adapter  # needs the packages of the extra `language`

    write_adapter(out, run.model("fine_tuned"), s.weights)


def export_merged(directory: str | pathlib.Path, out: pathlib.Path) -> None:
    """Writes the fine-tuned model of a run, adapters merged, as a Hugging Face directory.

    Raises:
      UserError: not a run, or one without a language model.
    """
    run = Run.open(directory)
    weights = run.settings.weights
    if not weights:
        raise UserError(f"{directory} has no language model: its weights are in weights.safetensors")
    from icdm.published.merged import write_merged  # needs the packages of the extra `language`
    from icdm.published.model import open_published

    write_merged(out, run.model("fine_tuned").merged(), open_published(weights))
