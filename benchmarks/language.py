"""Our side of the comparison with transformers and peft: adapters of SmolLM2 on the rows of language_energy.

    python -m benchmarks.language DIRECTORY [--again]

Does three training steps, for the memory that they take; DIRECTORY is not read, since the weights are the installed
ones.
"""

import dataclasses
import pathlib
import sys

import jax
import numpy as np

from experiments.configs import language_energy
from icdm.learning.objectives import Lesson, action_loss
from icdm.learning.sources import Labelled, TaskPool
from icdm.learning.train import fresh_state, make_update
from icdm.memory import keep_freed_memory
from icdm.models.policy import TransformerPolicy
from icdm.published.merged import write_merged
from icdm.published.model import Published, load, open_published
from icdm.runs.settings import Settings
from icdm.sharding import make_mesh
from icdm.trajectories.prompt import encode
from icdm.trajectories.rollout import rollout


@dataclasses.dataclass(frozen=True)
class Rows:
    """One batch of the config's training rows, and the model that reads them."""

    settings: Settings
    published: Published
    tasks: tuple
    lesson: Lesson

    @classmethod
    def of_config(cls) -> "Rows":
        """Raises UserError if the weights are not installed."""
        s = Settings.from_config(language_energy.get_config())
        recorder = Labelled(s.context, s.query_behavior, s.labels)
        pool = TaskPool(s.family, recorder, s.fine_tune.batch, jax.random.key(0), make_mesh(), s.label_oracle, 8)
        batch = pool.batch(0)
        [lesson] = pool.lessons(batch, jax.random.key(1))
        return cls(s, open_published(s.weights), batch, lesson)

    @property
    def horizon(self) -> int:
        return self.settings.family.horizon

    @property
    def read(self) -> int:
        """Tokens of a row's context."""
        episodes = self.settings.context.episodes
        return self.given()["id_BL"].shape[1] * episodes // (episodes + 1)

    def given(self) -> dict:
        """What PyTorch is given: tokens (B, L), acting positions, actions (B, I), tokens of actions, adapters' rank."""
        s = self.settings
        prompt = encode(s.layout, self.lesson.trajectories)
        valid_L = np.asarray(prompt.tokens.valid[0])  # the same in all rows: the energy chain does not end early
        id_BL = np.array(prompt.tokens.id[:, valid_L, 0])
        return dict(
            id_BL=id_BL,
            acting=np.cumsum(valid_L)[prompt.decisions.acting.ravel()] - 1,
            action_BI=np.array(self.lesson.target.action).reshape(len(id_BL), -1),
            action_ids=np.array(s.layout.action_ids),
            rank=s.fine_tune.lora.rank,
        )

    def write(self, directory: pathlib.Path) -> None:
        """The weights as transformers reads them, and rows.npz."""
        write_merged(directory, load(self.published, self.settings.model), self.published)
        np.savez(directory / "rows.npz", **self.given())


def training_step(rows: Rows, again: bool):
    """A function that does one step and waits for it; `again`: activations are computed again in the backward pass."""
    s = rows.settings
    model = load(rows.published, dataclasses.replace(s.model, remat=again))
    training = s.fine_tune

    def loss(model, batch, key):
        return action_loss(model, s.layout, [batch])

    update = make_update(loss, training.optimizer(), training.lora)
    held = [fresh_state(model, training, jax.random.key(0))]

    def step():
        held[0], numbers = update(held[0], model, rows.lesson)
        return float(numbers[0])

    return step


def play(rows: Rows):
    """A function that reads the contexts of all rows and acts through an episode of each."""
    s = rows.settings
    tasks, task_B = rows.tasks
    model = load(rows.published, s.model)
    context = jax.tree.map(lambda x: x[:, : s.context.episodes], rows.lesson.trajectories)
    played = jax.jit(
        lambda model: rollout(tasks.problem, task_B, TransformerPolicy(model, context, s.layout), jax.random.key(3))
    )
    return lambda: played(model).action.block_until_ready()


if __name__ == "__main__":
    keep_freed_memory()  # as the commands do
    step = training_step(Rows.of_config(), "--again" in sys.argv)
    for _ in range(3):
        step()
