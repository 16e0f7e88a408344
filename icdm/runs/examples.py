"""A run's training rows as a file of supervised examples; a stopped export goes on where it was."""

import json
import pathlib
from typing import Any

import jax
import numpy as np

from icdm.errors import UserError, unknown
from icdm.files import file_checksum, write_json
from icdm.learning.train import step_key
from icdm.runs.data import open_data
from icdm.runs.run import FINE_TUNE_KEY, Run
from icdm.runs.settings import first_difference
from icdm.sharding import make_mesh
from icdm.trajectories.writing import (
    FORMATS,
    Messages,
    PromptCompletion,
    TokenIds,
    Writer,
    manifest_path,
)


def write_examples(run: Run, out: pathlib.Path, form: str, rows: int) -> dict:
    """Writes the first rows that fine-tuning reads, step by step, with an action as the label of each decision.

    OUT.jsonl appears when it is whole, together with OUT.manifest.json. Until then OUT.jsonl.partial and
    OUT.jsonl.position.json say how far the export has got; the same call goes on from there.

    Args:
      form: one of FORMATS.

    Returns:
      The manifest.

    Raises:
      UserError: a form that there is not or that the run cannot have, or an export of something else has begun there.
    """
    if out.suffix != ".jsonl":
        raise UserError(f"{out}: give a name that ends in .jsonl")
    if rows < 1:
        raise UserError(f"--rows {rows}: give at least 1")
    writer = _writer(run, form)
    s, mesh = run.settings, make_mesh()
    key = jax.random.fold_in(run.key, FINE_TUNE_KEY)
    source, _ = open_data(run, mesh).sources(key, s.fine_tune.batch)
    lessons = jax.jit(source.lessons)
    contents = _contents(run, form, rows)
    partial, position = (out.with_name(out.name + end) for end in (".partial", ".position.json"))
    at = _position(partial, position, contents)
    with partial.open("ab") as file:
        file.truncate(at["bytes"])
        for step in range(at["steps"], -(-rows // s.fine_tune.batch)):
            found = jax.tree.map(np.asarray, lessons(source.batch(step), step_key(key, step)))
            examples = [row for lesson in found for row in writer.examples(lesson.trajectories, lesson.target.action)]
            wanted = examples[: rows - step * s.fine_tune.batch]
            lines = [json.dumps(example) + "\n" for row in wanted for example in row]
            file.write("".join(lines).encode())
            file.flush()
            at = {"steps": step + 1, "lines": at["lines"] + len(lines), "bytes": file.tell()}
            write_json(position, contents | at)
    manifest = contents | {"lines": at["lines"], "sha256": file_checksum(partial), "fields": writer.fields}
    write_json(manifest_path(out), manifest)
    partial.replace(out)
    position.unlink()
    return manifest


def _writer(run: Run, form: str) -> Writer:
    if form not in FORMATS:
        raise unknown("--format", form, FORMATS)
    if form == "tokens":
        if not run.settings.weights:
            raise UserError(
                "--format tokens: the run has no language model: export texts, or give a config with weights"
            )
        return TokenIds(run.layout)
    return {"prompt-completion": PromptCompletion, "messages": Messages}[form](run.settings.phrases)


def _contents(run: Run, form: str, rows: int) -> dict[str, Any]:
    """What the export depends on."""
    fields = (
        "family",
        "horizon",
        "problem",
        "context",
        "query_behavior",
        "data",
        "columns",
        "data_labels",
        "label_oracle",
    )
    own = {name: run.config[name] for name in (*fields, "text", "weights", "seed")}
    s = run.settings
    chosen = {"tasks": s.pool, "held_out": s.n_held_out, "rows": rows, "rows_of_a_step": s.fine_tune.batch}
    return {"format": form, "labels": "argmax"} | own | chosen


def _position(partial: pathlib.Path, position: pathlib.Path, contents: dict[str, Any]) -> dict[str, int]:
    """How far an export of these contents has got.

    Raises:
      UserError: an export of other contents has begun there.
    """
    start = {"steps": 0, "lines": 0, "bytes": 0}
    if not (position.exists() and partial.exists()):
        return start
    begun = json.loads(position.read_text())
    at = {name: begun.pop(name) for name in start}
    difference = first_difference(contents, begun)
    if difference:
        raise UserError(f"{partial} was begun with another {difference}: delete it, or choose another name")
    return at if partial.stat().st_size >= at["bytes"] else start
