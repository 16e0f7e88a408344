"""A trained run that decides: it reads a context once, and then acts step by step from its KV cache."""

import dataclasses
import functools
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from icdm.errors import UserError
from icdm.learning.checkpoint import Checkpoints
from icdm.learning.train import TrainConfig, TrainState
from icdm.models.lora import init_lora, merge_lora
from icdm.models.policy import TransformerPolicy
from icdm.models.transformer import ModelConfig, Transformer
from icdm.trajectories.layouts import problem_of
from icdm.trajectories.rollout import Trajectories

PHASES = ("pretrain", "fine_tune")
TRAINING = {field.name for field in dataclasses.fields(TrainConfig)}


@dataclasses.dataclass(frozen=True)
class Decision:
    """What to do now, in each of B rows.

    Attributes:
      action: (B,) the action with the highest logit.
      probability: (B, A) softmax of the logits.
      value: (B, A) Q of each action less the mean over actions, in units of reward, where the model was
        trained on labels that carry it; else None.
    """

    action: np.ndarray
    probability: np.ndarray
    value: np.ndarray | None


class Decider:
    """B rows that act side by side, each in a task of its own.

        decider = Decider.from_run("runs/demo")
        decider.reset(context)                 # Trajectories (B, K, ...), or decider.reset(rows=B) without
        decision = decider.act(observation)    # (B,)
        decider.observe(decision.action, reward)

    After `horizon` steps an episode is over: reset, with what was recorded as part of the context if you like.

    Attributes:
      family, config: the problem and the config of the run.
    """

    def __init__(self, model: Transformer, config: dict):
        self.family, layout = problem_of(config)
        self.config = config
        self.policy = TransformerPolicy(model, None, layout, self.family.n_actions, config["single_steps"])
        self.carry, self.t = None, 0

    @classmethod
    def from_run(cls, directory) -> "Decider":
        """The fine-tuned model of a run's directory.

        Raises:
          UserError: not a run, or one that has not saved a model yet.
        """
        config = read_config(directory)
        return cls(load_model(directory, config), config)

    def reset(self, context: Trajectories | None = None, rows: int = 1) -> None:
        """Begins an episode in each row, having read its context.

        Raises:
          UserError: a context that is longer than the model's limit.
        """
        if context is not None:
            rows = context.action.shape[0]
            context = dataclasses.replace(context, reward=self._shown(context.reward))
        policy = dataclasses.replace(self.policy, context=context)
        self.carry, self.t = _init(policy, jnp.zeros(rows, jnp.int32)), 0

    def act(self, observation) -> Decision:
        """Decides on what is observed now, (B,) codes.

        Raises:
          UserError: before `reset`, after the last step, or on an observation that the problem does not have.
        """
        observation = np.atleast_1d(np.asarray(observation, np.int32))
        self._check(observation)
        action, logits, self.carry = _act(self.policy, self.carry, observation)
        logits = np.asarray(logits, np.float64)
        odds = np.exp(logits - logits.max(-1, keepdims=True))
        return Decision(np.asarray(action), odds / odds.sum(-1, keepdims=True), self._values(logits))

    def observe(self, action, reward) -> None:
        """Takes note of what was done, (B,) codes, and what it paid, (B,)."""
        action, reward = (
            np.atleast_1d(np.asarray(action, np.int32)),
            self._shown(np.atleast_1d(np.asarray(reward, np.float32))),
        )
        self.carry = _observe(self.policy, self.carry, action, reward)
        self.t += 1

    def _shown(self, reward):
        """Rewards as the model was trained to see them: a problem may hide them, and a log hold them all the same."""
        return reward if getattr(self.family, "shows_reward", True) else np.zeros_like(reward)

    def _values(self, logits):
        """The labels `boltzmann` and `advantage` both make temperature x logits estimate Q up to a constant."""
        tuned = self.config["fine_tune"]
        if self.config["data"] or tuned["labels"] == "argmax":
            return None
        return tuned["temperature"] * (logits - logits.mean(-1, keepdims=True))

    def _check(self, observation):
        if self.carry is None:
            raise UserError("reset the decider before its first action")
        if self.t >= self.policy.layout.horizon:
            raise UserError(f"the episode is over after {self.t} steps: reset the decider")
        n = self.policy.layout.n_observations
        if (observation < 0).any() or (observation >= n).any():
            raise UserError(
                f"observation {observation[(observation < 0) | (observation >= n)][0]}: give codes from 0 to {n - 1}"
            )


def read_config(directory) -> dict:
    """config.json of a run's directory.

    Raises:
      UserError: there is none, or it cannot be read.
    """
    path = pathlib.Path(directory) / "config.json"
    try:
        return json.loads(path.read_text())
    except OSError:
        raise UserError(f"{directory} is not a run: {path} is missing") from None
    except json.JSONDecodeError:
        raise UserError(f"{path} cannot be read: it is damaged") from None


def load_model(directory, config: dict) -> Transformer:
    """The model of the newest whole checkpoint of the last phase.

    Raises:
      UserError: a phase that has no checkpoint.
    """
    return list(load_models(directory, config).values())[-1]


def load_models(directory, config: dict) -> dict[str, Transformer]:
    """The model as it was before training, "start", and as each phase of the run left it, in order.

    Raises:
      UserError: a phase that has no checkpoint.
    """
    family, layout = problem_of(config)
    seed = jax.random.fold_in(jax.random.key(config["seed"]), 0)
    models = {"start": Transformer(ModelConfig(**config["model"]), layout.size, nnx.Rngs(seed))}
    for phase in PHASES:
        training = TrainConfig(**{name: x for name, x in config[phase].items() if name in TRAINING})
        if training.steps:
            before = list(models.values())[-1]
            models[phase] = _restored(pathlib.Path(directory) / "checkpoints" / phase, before, training)
    return models


def _restored(directory: pathlib.Path, model: Transformer, training: TrainConfig) -> Transformer:
    if not directory.is_dir():
        raise UserError(f"{directory} is missing: the run has not got there yet; start it again to go on")
    checkpoints = Checkpoints(directory)
    trainable = init_lora(model, training.lora_rank, jax.random.key(0)) if training.lora_rank else model
    key = jax.random.key_data(jax.random.key(0))
    like = TrainState(trainable, training.optimizer().init(trainable), jnp.int32(0), key)
    step, state = checkpoints.restore(like)
    checkpoints.close()
    if step == 0:
        raise UserError(f"{directory} holds no checkpoint: the run has not got there yet; start it again to go on")
    return merge_lora(model, state.trainable) if training.lora_rank else state.trainable


@jax.jit
def _init(policy, task_B):
    return policy.init(task_B)


@functools.partial(jax.jit, donate_argnums=1)
def _act(policy, carry, observation_B):
    return policy.act(carry, observation_B, jax.random.key(0))


@functools.partial(jax.jit, donate_argnums=1)
def _observe(policy, carry, action_B, reward_B):
    return policy.observe(carry, action_B, reward_B)
