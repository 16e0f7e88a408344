"""The one training loop."""

import dataclasses
import functools
import math
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from icdm.chips import utilisation
from icdm.errors import Stopped, UserError
from icdm.learning.checkpoint import Checkpoints
from icdm.models.flops import training_flops
from icdm.models.lora import Adapted, LoraConfig, adapted, init_factors
from icdm.models.transformer import MATRICES, Transformer


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """One phase of training: AdamW, linear warm-up, cosine decay to 0, gradients clipped.

    Attributes:
      steps, batch: how many updates, of how many rows each.
      learning_rate: peak, reached after `warmup` steps.
      lora_rank, lora_alpha, lora_dropout, lora_targets: adapters to train in place of the weights
        (`icdm.models.lora.LoraConfig`); rank 0 trains all weights.
      checkpoint_every, log_every: in steps.
      validate_every: steps between two looks at held-out tasks; 0 for none. The weights with the lowest loss there are
        the result.
      patience: after so many looks without a lower loss training ends.
    """

    steps: int = 1000
    batch: int = 64
    learning_rate: float = 1e-3
    warmup: int = 100
    weight_decay: float = 0.01
    clip: float = 1.0
    lora_rank: int = 0
    lora_alpha: float = 16.0
    lora_dropout: float = 0.0
    lora_targets: tuple[str, ...] = MATRICES
    checkpoint_every: int = 500
    log_every: int = 50
    validate_every: int = 0
    patience: int = 5

    @property
    def lora(self) -> LoraConfig:
        return LoraConfig(self.lora_rank, self.lora_alpha, self.lora_dropout, tuple(self.lora_targets))

    def optimizer(self) -> optax.GradientTransformation:
        warmup = min(self.warmup, self.steps // 2)
        schedule = optax.warmup_cosine_decay_schedule(0.0, self.learning_rate, warmup, max(self.steps, 1))
        return optax.chain(
            optax.clip_by_global_norm(self.clip), optax.adamw(schedule, b2=0.99, weight_decay=self.weight_decay)
        )


NO_ADAPTERS = LoraConfig()
DROPOUT = 0x5EED  # folded into a step's key; sources fold in small numbers


class Best(NamedTuple):
    """The weights with the lowest loss on held-out tasks so far, that loss, and the step."""

    trainable: Any
    loss: jax.Array
    step: jax.Array


class TrainState(NamedTuple):
    """What a checkpoint holds. The step is also the position in the data, which is a function of key and step.

    best: None without held-out tasks.
    """

    trainable: Any
    optimizer: Any
    step: jax.Array
    key: jax.Array
    best: Best | None = None

    @property
    def result(self) -> Any:
        """What was trained."""
        return self.trainable if self.best is None else self.best.trainable


def train(
    model: Transformer | Adapted,
    loss: Callable[[Transformer | Adapted, Any, jax.Array], tuple[jax.Array, jax.Array]],
    batch: Callable[[int], Any],
    config: TrainConfig,
    key: jax.Array,
    *,
    place: Callable[[Any], Any],
    checkpoints: Checkpoints,
    log: Callable[..., None],
    stop: Callable[[], bool] = lambda: False,
    validate: Callable[[Transformer | Adapted], float] | None = None,
    row_length: int = 0,
    trace: Callable[[int, Any], None] = lambda step, state: None,
) -> Transformer | Adapted:
    """Trains from the newest checkpoint, or from the start, to the last step, and returns the model.

    Adapters are trained and checkpointed without the weights beside them, which stay as they are.

    Args:
      model: where training starts; adapters that it has from an earlier phase are merged first.
      loss: (model, batch, key) -> (mean loss, number of valid positions); pure.
      batch: step -> what the loss needs; the same for the same step.
      place: puts a training state onto devices (`icdm.models.placement`).
      log: called as log(step, loss=..., grad_norm=..., tokens_per_s=..., tflops_per_s=...) every `log_every` steps,
        with `mfu` on devices whose peak is known, and as log(step) before the first, and again once that is compiled.
      stop: asked at every step; when it says so, the state is saved and Stopped raised.
      validate: model -> loss on held-out tasks, if the config asks for it.
      row_length: positions of the longest row, for the operations of attention (`icdm.models.flops`).
      trace: called as trace(step, state) before every step.

    Raises:
      UserError: the loss or its gradient is not finite; the last good checkpoint stays.
    """
    model = model.merged()
    frozen = model if config.lora_rank else None
    state = fresh_state(model, config, key)
    start, state = checkpoints.restore(place(jax.tree.map(jnp.array, state)))
    update = make_update(loss, config.optimizer(), config.lora)
    flops = training_flops(model.config, row_length, frozen=frozen is not None)
    log(start)

    def whole(trainable: Any) -> Transformer | Adapted:
        return adapted(frozen, trainable, config.lora) if config.lora_rank else trainable

    pending, recent, since, checked = [], [], time.perf_counter(), {}
    is_over = _is_over(state, start, config)
    for step in range(start, config.steps):
        if is_over:
            break
        trace(step, state)
        state, numbers = update(state, frozen, batch(step))
        if step == start:
            log(step + 1)
        pending.append((step, numbers))
        if config.validate_every and (step + 1) % config.validate_every == 0:
            checked = {"validation_loss": validate(whole(state.trainable))}
            state = _with_best(state, checked["validation_loss"])
            is_over = _is_over(state, step + 1, config)
        stopping = stop()
        saving = stopping or (step + 1) % config.checkpoint_every == 0 or step + 1 == config.steps
        saving = saving or is_over
        logging = (step + 1) % config.log_every == 0
        # Numbers are fetched while the next step is computed, unless they are needed at once.
        ready, pending = (pending, []) if saving or logging else (pending[:-1], pending[-1:])
        recent += [_finite(*numbers_of_step) for numbers_of_step in ready]
        if logging:
            losses, norms, counts = zip(*recent)
            rate = sum(counts) / (time.perf_counter() - since)
            speed = {"tokens_per_s": rate, **utilisation(rate * flops)}
            log(step + 1, loss=sum(losses) / len(losses), grad_norm=norms[-1], **speed, **checked)
            recent, since = [], time.perf_counter()
        if saving:
            checkpoints.save(step + 1, state)
        if stopping and step + 1 < config.steps:
            raise Stopped(f"stopped at step {step + 1} of {config.steps}, saved")
    return whole(state.result)


def fresh_state(model: Transformer, config: TrainConfig, key: jax.Array) -> TrainState:
    """The state before the first step: of the model's weights, or of adapters that change nothing yet."""
    lora_key, data_key = jax.random.split(key)
    trainable = init_factors(model, config.lora, lora_key) if config.lora_rank else model
    best = Best(trainable, jnp.float32(jnp.inf), jnp.int32(0)) if config.validate_every else None
    memory = config.optimizer().init(trainable)
    return TrainState(trainable, memory, jnp.int32(0), jax.random.key_data(data_key), best)


def _with_best(state: TrainState, loss: float) -> TrainState:
    if loss >= state.best.loss.item():
        return state
    copied = jax.tree.map(jnp.copy, state.trainable)  # the next step reuses the memory of the state
    return state._replace(best=Best(copied, jnp.float32(loss), jnp.copy(state.step)))


def _is_over(state: TrainState, step: int, config: TrainConfig) -> bool:
    """Whether the loss on held-out tasks has not fallen for long enough."""
    return state.best is not None and step - state.best.step.item() >= config.patience * config.validate_every


def step_key(key: jax.Array, step: int) -> jax.Array:
    """The key that `train`, given `key`, passes to the loss of a step."""
    return jax.random.fold_in(jax.random.split(key)[1], step)


def make_update(loss: Callable, optimizer: optax.GradientTransformation, lora: LoraConfig = NO_ADAPTERS) -> Callable:
    """One jitted step of gradient descent; the old state's memory is reused for the new one.

    Args:
      lora: how the state's adapters go with the frozen weights, if it trains adapters.
    """

    def objective(trainable: Any, frozen: Transformer | None, batch: Any, key: jax.Array):
        if frozen is None:
            return loss(trainable, batch, key)
        return loss(adapted(frozen, trainable, lora, jax.random.fold_in(key, DROPOUT)), batch, key)

    @functools.partial(jax.jit, donate_argnums=0)
    def update(state: TrainState, frozen: Transformer | None, batch: Any):
        key = jax.random.fold_in(jax.random.wrap_key_data(state.key), state.step)
        (value, count), gradient = jax.value_and_grad(objective, has_aux=True)(state.trainable, frozen, batch, key)
        change, memory = optimizer.update(gradient, state.optimizer, state.trainable)
        trainable = optax.apply_updates(state.trainable, change)
        new = state._replace(trainable=trainable, optimizer=memory, step=state.step + 1)
        return new, (value, optax.tree.norm(gradient), count)

    return update


def _finite(step: int, numbers: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[float, float, int]:
    """(loss, gradient norm, valid positions) of a step, refused unless they are finite."""
    loss, norm, count = (x.item() for x in jax.device_get(numbers))
    if not (math.isfinite(loss) and math.isfinite(norm)):
        raise UserError(
            f"loss {loss} (gradient norm {norm}) at step {step + 1}: lower the learning rate; "
            "the last good checkpoint is kept"
        )
    return loss, norm, count
