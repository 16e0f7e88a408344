"""Trajectories as examples for fine-tuning elsewhere, one JSON object each, in the forms that TRL documents.

A row of episodes has a label, the action that should be taken, on some of its observations. `prompt-completion` and
`messages` are one example for each of them: the text up to the observation, and the label. `tokens` is one example for
each row: its ids, and at the place after each such observation the id of the label, elsewhere -100.
"""

import dataclasses
import pathlib
from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np

from icdm.errors import UserError
from icdm.trajectories.layouts.text import Phrases, TextLayout
from icdm.trajectories.prompt import encode
from icdm.trajectories.trajectory import NOTHING, Trajectories

NO_LOSS = -100  # as a label


class Writer(Protocol):
    """One form of examples.

    Attributes:
      fields: what every field of a trajectory is written as, a text or a list of ids: "opening", "episode",
        "observations", "actions", "rewards" (of reward_low, reward_low + reward_unit, ...).
    """

    fields: dict[str, Any]

    def examples(self, trajectories: Trajectories, label_BEU: np.ndarray) -> Iterator[list[dict]]:
        """The examples of each of B rows of E episodes; label NOTHING where there is none."""


@dataclasses.dataclass(frozen=True)
class PromptCompletion:
    """{"prompt": the text up to an observation, "completion": the label}."""

    phrases: Phrases

    @property
    def fields(self) -> dict[str, Any]:
        return dataclasses.asdict(self.phrases)

    def examples(self, trajectories: Trajectories, label_BEU: np.ndarray) -> Iterator[list[dict]]:
        for decisions in _decisions(self.phrases, trajectories, label_BEU):
            yield [{"prompt": self.phrases.opening + shown, "completion": action} for shown, action in decisions]


@dataclasses.dataclass(frozen=True)
class Messages:
    """{"messages": [system: the opening, if there is one; user: the text up to an observation; assistant: the label]}.

    All that was observed stands in one message, so that a loss on the assistant's words is a loss on labels alone.
    """

    phrases: Phrases

    def __post_init__(self):
        if "<|im_start|>" in self.phrases.episode:
            raise UserError("text chat holds the marks of messages itself: choose another --text or --format")

    @property
    def fields(self) -> dict[str, Any]:
        return dataclasses.asdict(self.phrases)

    def examples(self, trajectories: Trajectories, label_BEU: np.ndarray) -> Iterator[list[dict]]:
        opening = self.phrases.opening
        system = [{"role": "system", "content": opening}] if opening else []
        for decisions in _decisions(self.phrases, trajectories, label_BEU):
            yield [
                {"messages": [*system, {"role": "user", "content": shown}, {"role": "assistant", "content": action}]}
                for shown, action in decisions
            ]


@dataclasses.dataclass(frozen=True)
class TokenIds:
    """{"input_ids": of a row, "labels": what should follow on the ids before, or -100}, as icdm trains on them.

    A label may differ from the id in its place: the one was done, the other should have been.
    """

    layout: TextLayout

    @property
    def fields(self) -> dict[str, Any]:
        def there(table: tuple[tuple[int, ...], ...]) -> list[list[int]]:
            return [[id for id in row if id != NOTHING] for row in table]

        return {
            "opening": list(self.layout.opening_ids),
            "episode": list(self.layout.episode_ids),
            "observations": there(self.layout.observation_table),
            "actions": [[id] for id in self.layout.action_table],
            "rewards": there(self.layout.reward_table),
            "reward_low": self.layout.reward_low,
            "reward_unit": self.layout.reward_unit,
        }

    def examples(self, trajectories: Trajectories, label_BEU: np.ndarray) -> Iterator[list[dict]]:
        prompt = encode(self.layout, trajectories)
        id_BL, valid_BL = np.asarray(prompt.tokens.id)[..., 0], np.asarray(prompt.tokens.valid)
        for id_L, valid_L, label_EU in zip(id_BL, valid_BL, label_BEU):
            ids, place_L = id_L[valid_L].tolist(), np.cumsum(valid_L)
            labels = [NO_LOSS] * len(ids)
            for e, u in np.argwhere(label_EU != NOTHING):
                place, id = place_L[prompt.acting[e, u]], self.layout.action_table[label_EU[e, u]]
                if place == len(ids):  # nothing was done after the last observation
                    ids, labels = [*ids, id], [*labels, NO_LOSS]
                labels[place] = id
            yield [{"input_ids": ids, "labels": labels}]


FORMATS = ("prompt-completion", "messages", "tokens")


def manifest_path(path: pathlib.Path) -> pathlib.Path:
    """Where the description of exported examples lies."""
    return path.with_suffix(".manifest.json")


def written(phrases: Phrases, trajectories: Trajectories) -> list[list[list[str]]]:
    """What every observation of B rows of E episodes adds to the text, [row][episode][t]: "" where the step before it
    did not take place, as in `icdm.trajectories.prompt.encode`."""
    observation, action, reward, valid = (
        np.asarray(x) for x in (trajectories.observation, trajectories.action, trajectories.reward, trajectories.valid)
    )

    def append(b: int, e: int, t: int) -> str:
        if t and not valid[b, e, t - 1]:
            return ""
        before = max(t - 1, 0)
        return phrases.append(t, action[b, e, before], reward[b, e, before], observation[b, e, t])

    rows, episodes, times = observation.shape
    return [[[append(b, e, t) for t in range(times)] for e in range(episodes)] for b in range(rows)]


def _decisions(phrases: Phrases, trajectories: Trajectories, label_BEU: np.ndarray) -> Iterator[list[tuple[str, str]]]:
    """Of each row: the text from the first episode to an observation that has a label, and the label's text."""
    for episodes, label_EU in zip(written(phrases, trajectories), label_BEU):
        shown, decisions = "", []
        for appends, label_U in zip(episodes, label_EU):
            for u, append in enumerate(appends):
                shown += append
                if u < len(label_U) and label_U[u] != NOTHING:
                    decisions.append((shown, phrases.actions[label_U[u]]))
        yield decisions
