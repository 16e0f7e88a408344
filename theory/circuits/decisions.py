"""What a model does at some decisions, mostly of the last episode, and what interventions change.

A decision is named by its step in the last of a row's episodes; everything before it is its context. Axis letters: N
tasks, W decisions, E episodes, T steps, A actions, L positions, X layers, H heads, I = E T steps one after another.
"""

import dataclasses
import functools
from collections.abc import Collection

import jax
import jax.numpy as jnp
import numpy as np

from icdm.models.taps import reading
from icdm.models.transformer import Transformer
from icdm.problems.family import Family
from icdm.trajectories.layouts import Layout
from icdm.trajectories.prompt import encode
from icdm.trajectories.trajectory import NOTHING, Trajectories
from theory.circuits.trained import Study, in_pieces


def logits_at_steps(
    layout: Layout,
    model: Transformer,
    episodes: Trajectories,
    steps: tuple[int, ...],
    without: Collection[tuple[int, int]] = (),
) -> np.ndarray:
    """The model's logits at these steps of the last episode, (N, W, A) float64.

    Args:
      without: (layer, head) pairs that write nothing into the stream.
    """
    kept_XH = None
    if without:
        kept_XH = np.ones((model.config.layers, model.config.heads), np.float32)
        kept_XH[tuple(np.transpose(list(without)))] = 0
    pieces = in_pieces(lambda rows: _logits(layout, model, rows, steps, kept_XH), episodes)
    return np.concatenate(pieces).astype(np.float64)[: len(episodes.action)]


@functools.partial(jax.jit, static_argnums=(0, 3))
def _logits(layout, model, episodes, steps, kept_XH):
    prompt = encode(layout, episodes)
    layers = range(model.config.layers) if kept_XH is not None else ()
    taps = {f"{i}.heads": lambda x_BLHD, i=i: x_BLHD * kept_XH[i][None, None, :, None] for i in layers}
    hidden_BLD = model(prompt.tokens, context=prompt.context, taps=taps).hidden
    return model.logits(hidden_BLD[:, prompt.acting[-1, list(steps)]], layout.action_ids)


def logits_of_every_episode(study: Study, name: str) -> np.ndarray:
    """The logits of one of a study's models at every step of every episode, after the episodes before it, (N, E, T, A).

    Where the context reads itself both ways (`model.prefix`), one prompt of all episodes shows an earlier one what
    comes later: every episode is then asked for anew.
    """
    if not study.run.settings.model.prefix:
        return study.readings[name].logits
    episodes = study.shuffled if name == "shuffled_context" else study.rows.episodes
    _, n_episodes, n_steps = episodes.action.shape
    asked = functools.partial(logits_at_steps, study.run.layout, study.models[name], steps=tuple(range(n_steps)))
    return np.stack([asked(_asked_after(episodes, e)) for e in range(n_episodes)], axis=1)


def _asked_after(episodes: Trajectories, e: int) -> Trajectories:
    """N rows of as many episodes, the last of which is episode e; those before it took place, of others is nothing."""
    order = np.append(np.arange(episodes.action.shape[1] - 1), e)
    found = jax.tree.map(lambda x: x[:, order], episodes)
    there_1E1 = np.append(order[:-1] < e, True)[None, :, None]
    seen = jnp.where(there_1E1, found.observation, NOTHING)
    return dataclasses.replace(found, valid=found.valid & there_1E1, observation=seen)


def attention_at_steps(
    layout: Layout, model: Transformer, episodes: Trajectories, steps: tuple[int, ...]
) -> np.ndarray:
    """The attention of these decisions to every position of the prompt, (N, W, X, H, L)."""
    pieces = in_pieces(lambda rows: _attention(layout, model, rows, steps), episodes)
    return np.concatenate(pieces)[: len(episodes.action)]


@functools.partial(jax.jit, static_argnums=(0, 3))
def _attention(layout, model, episodes, steps):
    prompt, layers = encode(layout, episodes), range(model.config.layers)
    found, taps = reading(*(f"{i}.attention" for i in layers))
    model(prompt.tokens, context=prompt.context, taps=taps)
    acting = prompt.acting[-1, list(steps)]
    return jnp.stack([found[f"{i}.attention"][:, :, acting].swapaxes(1, 2) for i in layers], 2)


def each_replaced(family: Family, episodes: Trajectories, signal: str) -> Trajectories:
    """One row's episodes (E, ...) I times, (I, E, ...): in the i-th, the signal of step i is replaced."""
    chosen_IET = np.eye(episodes.action.size, dtype=bool).reshape(-1, *episodes.action.shape)
    many = jax.tree.map(lambda x: np.broadcast_to(np.asarray(x), (len(chosen_IET), *x.shape)), episodes)
    return replaced(family, many, chosen_IET, signal)


def replaced(family: Family, episodes: Trajectories, chosen_NET: np.ndarray, signal: str) -> Trajectories:
    """The episodes with one signal of each chosen step replaced.

    Args:
      signal: "reward", r by lowest + highest - r; or "observation", that after the step, o by the next one, which is
        o + 1 modulo the number of observations.
    """
    if signal == "reward":
        reward_NET = np.asarray(episodes.reward)
        opposite_NET = np.float32(sum(family.reward_range)) - reward_NET
        return dataclasses.replace(episodes, reward=np.where(chosen_NET, opposite_NET, reward_NET))
    observation_NEU = np.asarray(episodes.observation)
    after_NEU = np.pad(chosen_NET, [(0, 0), (0, 0), (1, 0)]) & (observation_NEU >= 0)
    next_NEU = (observation_NEU + 1) % family.observation_space.n
    return dataclasses.replace(episodes, observation=np.where(after_NEU, next_NEU, observation_NEU))
