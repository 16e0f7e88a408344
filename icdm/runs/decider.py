"""A trained run that decides: it reads a context once, and then acts step by step from its KV cache."""

import dataclasses
import functools
import math
import pathlib
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from icdm.errors import UserError
from icdm.logs.features import values_of
from icdm.models.policy import TransformerPolicy
from icdm.problems.policy import Carry, Policy
from icdm.runs.pretrained import pretrained_run
from icdm.runs.run import Run
from icdm.trajectories.trajectory import Trajectories


@dataclasses.dataclass(frozen=True)
class Decision:
    """What to do now, in each of B rows.

    Attributes:
      action: (B,) the action with the highest logit.
      probability: (B, A) softmax of the logits.
      value: (B, A) Q of each action less the mean over actions, in units of reward, where the model was
        trained on labels that carry it; else None.
      outside: which features lie outside what training saw, a sentence for each.
    """

    action: np.ndarray
    probability: np.ndarray
    value: np.ndarray | None
    outside: tuple[str, ...] = ()


class Decider:
    """B rows that act side by side, each in a task of its own.

        decider = Decider.from_run("runs/demo")
        decider.reset(context)                 # Trajectories (B, K, ...), or decider.reset(rows=B) without
        decision = decider.act(observation)    # (B,)
        decider.observe(decision.action, reward)

    After `horizon` steps an episode is over: reset, with what was recorded as part of the context if you like. Where
    observations have several features, `act` takes them by name, {"hr": (B,), "map": (B,)}.

    Attributes:
      run: whose fine-tuned model decides.
    """

    def __init__(self, run: Run):
        """Reads the weights.

        Raises:
          UserError: a run that has not saved a model yet.
        """
        self.run = run
        self.policy = TransformerPolicy(run.model("fine_tuned"), None, run.layout)
        self.carry, self.t = None, 0

    @classmethod
    def from_run(cls, directory: str | pathlib.Path) -> "Decider":
        """The decider of a run's directory.

        Raises:
          UserError: not a run, or one that has not saved a model yet.
        """
        return cls(Run.open(directory))

    @classmethod
    def pretrained(
        cls,
        directory: str | pathlib.Path,
        *,
        states: int,
        actions: int,
        horizon: int,
        rewards: tuple[float, float] = (0.0, 1.0),
    ) -> "Decider":
        """The decider of a model of many families, in a problem of these sizes that it was not trained for.

        Args:
          directory: what `icdm export --model` wrote, or the name of a model of the package: tabular.
          horizon: decisions in an episode.
          rewards: the lowest and the highest of one step.

        Raises:
          UserError: there is no such model, its files are damaged, or the problem is too large for it.
        """
        return cls(pretrained_run(directory, states, actions, horizon, *map(float, rewards)))

    def reset(self, context: Trajectories | None = None, rows: int = 1) -> None:
        """Begins an episode in each row, having read its context.

        Raises:
          UserError: a context that is longer than the model's limit, with episodes that are longer than the run's, or
            with actions or rewards that the problem does not have.
        """
        rows = rows if context is None else context.action.shape[0]
        self.carry, self.t = _init(self._with_context(context), jnp.zeros(rows, jnp.int32)), 0

    def act(self, observation: np.ndarray | Mapping[str, Sequence]) -> Decision:
        """Decides on what is observed now: (B,) codes, or the values of every feature by name, each (B,), nan or None
        where it was not measured.

        Raises:
          UserError: before `reset`, after the last step, or on an observation that the problem does not have.
        """
        self._check_going_on()
        encoder, outside = self.run.encoder, ()
        if encoder is not None:
            value_BF = values_of(encoder, observation)
            observation, outside = encoder.seen(value_BF), tuple(encoder.remarks(value_BF))
        _, logits, self.carry = _act(self.policy, self.carry, self._seen(observation))
        return dataclasses.replace(self._decision(logits), outside=outside)

    def observe(self, action: np.ndarray, reward: np.ndarray) -> None:
        """Takes note of what was done, (B,) codes, and what it paid, (B,).

        Raises:
          UserError: before `reset`, after the last step, or on an action or a reward that the problem does not have.
        """
        self._check_going_on()
        action = _codes("action", action, self.run.family.n_actions)
        reward = self._observed(_rewards(np.atleast_1d(reward)))
        self.carry = _observe(self.policy, self.carry, action, reward)
        self.t += 1

    def decide(self, context: Trajectories | None, own: Trajectories) -> Decision:
        """One decision in each row by reading everything in one pass: where no more are wanted, this spares the
        compilation of what acts step by step.

        Args:
          own: Trajectories (B, 1, ...) of the episode that is going on, with all of its steps valid; what is decided on
            is its last observation.

        Raises:
          UserError: a context as in `reset`, or an episode that is over.
        """
        policy, steps = self._with_context(context), own.action.shape[2]
        if steps >= self.run.family.horizon:
            raise UserError(f"the episode is over after {self.run.family.horizon} steps, {steps} are given")
        self._seen(own.observation)
        _codes("action", own.action, self.run.family.n_actions)
        own = dataclasses.replace(own, reward=self._observed(_rewards(np.asarray(own.reward))))
        return self._decision(_read(policy, own))

    def _with_context(self, context: Trajectories | None) -> TransformerPolicy:
        """The policy that reads a context, once that is checked."""
        if context is not None:
            self._check_context(context)
            context = dataclasses.replace(context, reward=self._observed(context.reward))
        return dataclasses.replace(self.policy, context=context)

    def _decision(self, logits: jax.Array) -> Decision:
        logits = np.asarray(logits, np.float64)
        if not np.isfinite(logits).all():
            raise UserError(f"{self.run.directory}: the model's logits are not finite: its weights are damaged")
        odds = np.exp(logits - logits.max(-1, keepdims=True))
        probability = odds / odds.sum(-1, keepdims=True)
        return Decision(logits.argmax(-1).astype(np.int32), probability, self._values(logits))

    def _observed(self, reward: np.ndarray) -> np.ndarray:
        """Rewards as the model read them in training: a problem may hide them although a log holds them."""
        return reward if self.run.family.shows_reward else np.zeros_like(reward)

    def _seen(self, observation: np.ndarray) -> np.ndarray:
        """Observations as the model reads them, codes or vectors, once they are checked."""
        space = self.run.family.observation_space
        if not space.numbers:
            return _codes("observation", observation, space.n)
        if observation.shape[-1] != space.numbers or not space.contains(observation).all():
            raise UserError(f"observations of several features: give the {space.numbers} numbers of the run's encoder")
        return observation.astype(np.float32)

    def _values(self, logits: np.ndarray) -> np.ndarray | None:
        """The labels `boltzmann` and `advantage` both make temperature x logits estimate Q up to a constant."""
        scale = self.run.settings.value_scale
        return None if math.isnan(scale) else scale * (logits - logits.mean(-1, keepdims=True))

    def _check_going_on(self) -> None:
        if self.carry is None:
            raise UserError("reset the decider before its first action")
        if self.t >= self.run.family.horizon:
            raise UserError(f"the episode is over after {self.t} steps: reset the decider")

    def _check_context(self, context: Trajectories) -> None:
        valid, horizon = np.asarray(context.valid), self.run.family.horizon
        if not self.run.layout.independent_steps and valid[..., horizon:].any():
            raise UserError(f"a context episode has {valid.sum(-1).max()} steps: the run's episodes have {horizon}")
        self._seen(np.asarray(context.steps.observation)[valid])
        _codes("action", np.asarray(context.action)[valid], self.run.family.n_actions)
        _rewards(np.asarray(context.reward)[valid])


def _codes(name: str, values: np.ndarray, n: int) -> np.ndarray:
    """The values as int32; nothing is rounded.

    Raises:
      UserError: values that are no integers from 0 to n - 1.
    """
    values = np.atleast_1d(values)
    if values.dtype.kind not in "iu":
        raise UserError(f"{name} of the type {values.dtype}: give codes, integers from 0 to {n - 1}")
    bad = (values < 0) | (values >= n)
    if bad.any():
        raise UserError(f"{name} {values[bad][0]}: give codes from 0 to {n - 1}")
    return values.astype(np.int32)


def _rewards(values: np.ndarray) -> np.ndarray:
    """The values as float32.

    Raises:
      UserError: values that are no finite numbers in 32 bits.
    """
    if values.dtype.kind not in "biuf" or not (np.abs(values.astype(np.float64)) <= np.finfo(np.float32).max).all():
        raise UserError(f"reward {values.ravel()[:4]}: give finite numbers of 32 bits")
    return values.astype(np.float32)


@jax.jit
def _init(policy: Policy, task_B: jax.Array):
    return policy.init(task_B)


@jax.jit
def _read(policy: TransformerPolicy, own: Trajectories):
    return policy.logits(own)


@functools.partial(jax.jit, donate_argnums=1)
def _act(policy: Policy, carry: Carry, observation_B: jax.Array):
    return policy.act(carry, observation_B, jax.random.key(0))


@functools.partial(jax.jit, donate_argnums=1)
def _observe(policy: Policy, carry: Carry, action_B: jax.Array, reward_B: jax.Array):
    return policy.observe(carry, action_B, reward_B)
