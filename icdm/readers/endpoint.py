"""A language model behind a server as one more reader: it sees the text of the context and of the episode so far."""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from icdm.readers.completions import Answer, Completions
from icdm.trajectories.collect import Tasks
from icdm.trajectories.layouts.text import Phrases
from icdm.trajectories.trajectory import NOTHING, Trajectories
from icdm.trajectories.writing import written


class _Memory(NamedTuple):
    """The text of each of B rows so far, and the step."""

    texts: list[str]
    t: int
    action_B: np.ndarray
    reward_B: np.ndarray


@dataclasses.dataclass
class EndpointPolicy:
    """Takes the action to which the server gives the highest probability; a policy for `rollout_on_host` alone.

    An answer that is no action is counted, and an action is then drawn uniformly.

    Attributes:
      before: what each row has read when its episode begins.
      ask: texts -> answers.
      counts: (B, 3) int, decisions, those with log-probabilities of actions, and invalid answers of each row.
    """

    phrases: Phrases
    before: list[str]
    ask: Callable[[list[str]], list[Answer]]
    counts: np.ndarray

    def init(self, task_B: np.ndarray) -> _Memory:
        return _Memory(self.before, 0, np.zeros(len(task_B), np.int32), np.zeros(len(task_B), np.float32))

    def act(self, memory: _Memory, observation_B: np.ndarray, key: jax.Array):
        rows = np.flatnonzero(observation_B != NOTHING)
        texts = list(memory.texts)
        for b in rows:
            texts[b] += self.phrases.append(memory.t, memory.action_B[b], memory.reward_B[b], observation_B[b])
        n_actions = len(self.phrases.actions)
        action_B = np.array(jax.random.randint(key, observation_B.shape, 0, n_actions, jnp.int32))
        for b, answer in zip(rows, self.ask([texts[b] for b in rows])):
            action, by_logprobs = chosen(answer, self.phrases.actions)
            self.counts[b] += (1, by_logprobs, action is None)
            action_B[b] = action_B[b] if action is None else action
        logits_BA = np.where(action_B[:, None] == np.arange(n_actions), 0.0, -np.inf)
        return action_B, logits_BA, memory._replace(texts=texts)

    def observe(self, memory: _Memory, action_B: np.ndarray, reward_B: np.ndarray) -> _Memory:
        return _Memory(memory.texts, memory.t + 1, np.asarray(action_B), reward_B)


class EndpointReader:
    """Rows that a server decides for, and the counts of its answers.

    Args:
      check: called after each answer; what it raises ends the asking.
    """

    def __init__(self, completions: Completions, phrases: Phrases, check: Callable[[], None] = lambda: None):
        self.completions, self.phrases, self.check = completions, phrases, check
        self.counts: list[np.ndarray] = []

    def policy(self, tasks: Tasks, task_B: jax.Array, context: Trajectories | None, key: jax.Array) -> EndpointPolicy:
        episodes = [[]] * len(task_B) if context is None else written(self.phrases, context)
        before = [self.phrases.opening + "".join("".join(appends) for appends in row) for row in episodes]
        self.counts.append(np.zeros((len(task_B), 3), np.int64))
        return EndpointPolicy(
            self.phrases, before, lambda texts: self.completions.answers(texts, self.check), self.counts[-1]
        )

    @property
    def answers(self) -> np.ndarray:
        """(B, 3), the counts of all rows that were played, in their order; see `EndpointPolicy.counts`."""
        return np.concatenate(self.counts)


def chosen(answer: Answer, actions: tuple[str, ...]) -> tuple[int | None, bool]:
    """(the action of an answer, or None; whether log-probabilities decided).

    Where the server gives log-probabilities of actions, the likeliest of these; else the action with which the text
    begins.
    """
    scores = {i: answer.logprobs[action] for i, action in enumerate(actions) if action in answer.logprobs}
    if scores:
        return max(scores, key=scores.get), True
    text = answer.text.strip()
    for i in sorted(range(len(actions)), key=lambda i: -len(actions[i])):
        name = actions[i].strip()
        rest = text.removeprefix(name)[:1]
        if text.startswith(name) and not (
            rest.isalpha() and name[-1].isalpha() or rest.isdigit() and name[-1].isdigit()
        ):
            return i, False
    return None, False
