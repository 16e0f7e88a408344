"""Supervised examples as recorded steps: JSON lines that `icdm export` wrote, read back.

What an example shows comes back exactly, rewards as the text rounds them. Each exported row becomes a task of its own,
since a text does not say which rows share one. Examples of one decision show a row up to its last decision, whose
observation therefore ends the last episode, with the label as its oracle's action; token ids show the whole row.
A form of text without a mark between episodes (paper) does not show where an episode ended whose last observation was
not recorded: it runs on into the next one.
"""

import json
import pathlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from icdm.errors import UserError
from icdm.files import file_checksum
from icdm.logs.table import NOTHING, Rows, as_batch, join
from icdm.trajectories.writing import NO_LOSS, manifest_path

ROWS_AT_ONCE = 1024  # exported rows in one batch


def reader(path: pathlib.Path) -> Callable[[], Iterator[pa.RecordBatch]]:
    """A function that starts a pass over the raw batches of exported examples.

    Raises:
      UserError: the manifest is missing, or the file is another one than it describes.
    """
    beside = manifest_path(path)
    try:
        manifest = json.loads(beside.read_text())
        fields = Fields(manifest["fields"])
        same = manifest["sha256"] == file_checksum(path)
    except OSError:
        raise UserError(f"{beside} is missing: it says how {path} is read; export it again") from None
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{beside} is damaged: export {path} again") from None
    if not same:
        raise UserError(f"{path} is not the file that {beside} describes: it was changed or cut short; export it again")
    return lambda: _batches(path, fields)


class Shown(NamedTuple):
    """A whole row, as far as its examples show it, and what should follow on a part of it.

    sequence: a text, or a list of ids.
    labels: {length of the part: code of the action}.
    """

    sequence: Sequence
    labels: dict[int, int]


class Fields:
    """What each field of a trajectory is written as, to find it in a sequence: a text, or a list of ids."""

    def __init__(self, written: dict[str, Any]):
        self.opening, self.episode = written["opening"], written["episode"]
        self.observations, self.actions, self.rewards = (
            _Field(written[name]) for name in ("observations", "actions", "rewards")
        )
        self.reward_low, self.reward_unit = written["reward_low"], written["reward_unit"]

    def shown(self, examples: Iterable[dict]) -> Iterator[Shown]:
        """The rows of the examples: one shows a row, or several, each longer than the one before, show parts of it."""
        row = Shown("", {})
        for example in examples:
            if "input_ids" in example:
                labels = enumerate(example["labels"])
                yield Shown(example["input_ids"], {n: self.actions.codes[(id,)] for n, id in labels if id != NO_LOSS})
                continue
            text, action = _decision(example)
            if row.labels and not (len(text) > len(row.sequence) and text.startswith(row.sequence)):
                yield row
                row = Shown("", {})
            row = Shown(text, row.labels | {len(text): self.actions.codes[action]})
        if row.labels:
            yield row

    def steps(self, row: Shown, task: int, episode: int) -> Rows:
        """The rows of a table of all episodes of an exported row, numbered from `episode` on."""
        sequence, place = row.sequence, len(self.opening)
        found, t = [], 0
        while place < len(sequence):
            action, after = self.actions.at(sequence, place)
            if action is None:
                after, episode, t = place + len(self.episode), episode + bool(found), 0
            else:
                reward, after = self.rewards.at(sequence, after)
                if reward is None and after == len(sequence):  # the label of an observation on which nothing was done
                    break
                found[-1][3:5], t = (action, self.reward_low + self.reward_unit * reward), t + 1
            observation, after = self.observations.at(sequence, after)
            if after == place:
                raise ValueError(f"no field of a trajectory at {place} of {sequence}")
            place = after
            if observation is None:  # it was not recorded
                continue
            found.append([episode, t, observation, NOTHING, 0.0, row.labels.get(place, NOTHING)])
        episode_id, t, observation, action, reward, label = (np.array(column) for column in zip(*found))
        n = len(found)
        return Rows(
            task_id=np.full(n, task),
            episode_id=episode_id,
            t=t,
            observation=observation,
            action=action,
            reward=reward,
            oracle_action=label,
            behavior_probability=np.full(n, np.nan),
            terminal=np.zeros(n, bool),
        )


class _Field:
    """The values of one field: their codes, and how long they can be, the longest first."""

    def __init__(self, values: list):
        self.codes = {_key(value): code for code, value in enumerate(values)}
        self.lengths = sorted({len(value) for value in values}, reverse=True)

    def at(self, sequence: Sequence, place: int) -> tuple[int | None, int]:
        """The code of the longest value that stands at a place, and where it ends; None if there is none."""
        for length in self.lengths:
            value = sequence[place : place + length]
            if _key(value) in self.codes:
                return self.codes[_key(value)], place + len(value)
        return None, place


def _key(value: Sequence) -> Any:
    return value if isinstance(value, str) else tuple(value)


def _decision(example: dict) -> tuple[str, str]:
    """(text, action) of an example of one decision."""
    if "prompt" in example:
        return example["prompt"], example["completion"]
    *shown, answer = (message["content"] for message in example["messages"])
    return "".join(shown), answer


def _batches(path: pathlib.Path, fields: Fields) -> Iterator[pa.RecordBatch]:
    parts, episode = [], 0
    with path.open(encoding="utf-8") as file:
        for task, row in enumerate(fields.shown(map(json.loads, file))):
            parts.append(fields.steps(row, task, episode))
            episode = int(parts[-1].episode_id[-1]) + 1
            if len(parts) == ROWS_AT_ONCE:
                yield as_batch(join(parts))
                parts = []
    if parts:
        yield as_batch(join(parts))
