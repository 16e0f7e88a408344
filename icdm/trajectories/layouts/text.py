"""A trajectory as the text that a language model reads, field by field.

    opening | episode o | a r o | a r o | ... | episode o | a r o | ...

Each field is written by a template and turned into ids by the model's tokenizer once; at run time they are looked up in
tables. Values of a field that take fewer tokens than the longest are filled with positions that are not valid, which
the model skips. The model acts after the observation: the next token is the action, one token for each.
"""

import dataclasses
import string
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from icdm.errors import UserError, unknown
from icdm.trajectories.layouts.observations import Codes
from icdm.trajectories.layouts.vocabulary import Tokens
from icdm.trajectories.trajectory import NOTHING, Step

MOST_REWARDS = 20_001  # different texts of a reward
LEVELS = 9  # the best reward, where it is written as a digit

LETTERS, DIGITS = string.ascii_uppercase, [str(i) for i in range(1000)]


@dataclasses.dataclass(frozen=True)
class Form:
    """Templates of the fields; {} is the value.

    Attributes:
      opening: before the first episode; {words} is what the family says of its problems, {actions} and {example} are
        the names of the actions and the first of them.
      episode: before the first observation of an episode.
      observation, action, reward: of the fields.
      action_names: what the actions are called.
      decimals: to how many a reward is rounded (half to even); None for a digit from 0, the lowest, to LEVELS.
    """

    opening: str
    episode: str
    observation: str
    action: str
    reward: str
    action_names: Sequence[str]
    decimals: int | None


INSTRUCTION = (
    "{words} In each step you see the state and name one action ({actions}); then you see its reward. Earn as much "
    "reward in total as you can. First you see what others did in the same problem."
)

FORMS = {
    # As arXiv 2605.09009 writes a step: <O_t> 3, <A_t> 1, <R_t> 0.33
    "paper": Form("", "", " <O_t> {}, <A_t> ", "{}", ", <R_t> {},", DIGITS, 2),
    # " 3A4": four tokens a step; letters keep actions apart from states.
    "terse": Form("", ";", " {}", "{}", "{}", LETTERS, None),
    "words": Form(INSTRUCTION, " New episode.", " State {}, action ", "{}", ", reward {}.", DIGITS, 2),
    # The messages of a chat as SmolLM2 and Qwen mark them: the user shows observations, the assistant acts.
    "chat": Form(
        "<|im_start|>system\n" + INSTRUCTION + " Answer with the action alone.<|im_end|>\n",
        "<|im_start|>user\nNew episode.",
        " State {}.<|im_end|>\n<|im_start|>assistant\n",
        "{}",
        "<|im_end|>\n<|im_start|>user\nReward {}.",
        DIGITS,
        2,
    ),
}


@dataclasses.dataclass(frozen=True)
class Phrases:
    """The texts of every field of a family's trajectories, in one form.

    Attributes:
      opening, episode: of the two fields without a value.
      observations, actions: a text of each.
      rewards: of low, low + unit, ...; a reward is rounded to the nearest.
    """

    opening: str
    episode: str
    observations: tuple[str, ...]
    actions: tuple[str, ...]
    rewards: tuple[str, ...]
    reward_low: float
    reward_unit: float

    def append(self, t: int, action: int, reward: np.ndarray, observation: int) -> str:
        """What an observation adds, as in `TextLayout.append`: the action and the reward (float32) before it, or the
        beginning of an episode; then itself."""
        code = _reward_code(reward, self.reward_low, self.reward_unit, len(self.rewards))
        head = self.episode if t == 0 else self.actions[action] + self.rewards[code]
        return head + (self.observations[observation] if 0 <= observation < len(self.observations) else "")


@dataclasses.dataclass(frozen=True)
class TextLayout:
    """Tables of the ids of every field's values; shorter ones begin with NOTHING.

    Attributes:
      size: how many ids the tokenizer has.
      opening_ids, episode_ids: of the two fields without a value.
      observation_table: a row for each observation.
      action_table: the id of each action.
      reward_table: a row for each reward low, low + unit, ...; rewards are rounded to the nearest.
    """

    size: int
    horizon: int
    opening_ids: tuple[int, ...]
    episode_ids: tuple[int, ...]
    observation_table: tuple[tuple[int, ...], ...]
    action_table: tuple[int, ...]
    reward_table: tuple[tuple[int, ...], ...]
    reward_low: float
    reward_unit: float
    components = 1
    numbers = 0
    independent_steps = False

    @property
    def positions(self) -> int:
        return self._head + len(self.observation_table[0])

    @property
    def shown(self) -> Codes:
        return Codes((self.n_observations,))

    @property
    def family_horizon(self) -> int:
        return self.horizon

    @property
    def n_observations(self) -> int:
        return len(self.observation_table)

    @property
    def action_ids(self) -> np.ndarray:
        return np.array(self.action_table)

    @property
    def opening(self) -> np.ndarray:
        return np.array(self.opening_ids, np.int32)[:, None]

    def append(self, t: jax.Array, before: Step, observation: jax.Array) -> Tokens:
        """What an observation adds: the action and the reward before it, or the beginning of an episode; then itself.

        t, observation: (...,).
        """
        observation, t = jnp.broadcast_arrays(observation, t)
        action_1 = jnp.asarray(self.action_table)[before.action][..., None]
        taken = jnp.concatenate([action_1, self._reward(before.reward)], -1)
        begun = jnp.broadcast_to(jnp.asarray(_filled(self.episode_ids, self._head)), (*t.shape, self._head))
        head = jnp.where((t == 0)[..., None], begun, _filled_before(taken, self._head))
        there = (observation >= 0) & (observation < self.n_observations)  # others stand for what was not recorded
        shown = jnp.asarray(self.observation_table)[jnp.where(there, observation, 0)]
        shown = jnp.where(there[..., None], shown, NOTHING)
        id_L = jnp.concatenate([head, shown], -1).astype(jnp.int32)
        return Tokens(id_L[..., None], jnp.zeros((*id_L.shape, 0), jnp.float32), id_L != NOTHING)

    def targets(self, tokens: Tokens) -> list[tuple[slice, jax.Array]]:
        """What pretraining predicts: the token itself, out of the whole vocabulary."""
        return [(slice(0, self.size), tokens.id[..., 0])]

    @property
    def _head(self) -> int:
        return max(len(self.episode_ids), 1 + len(self.reward_table[0]))

    def _reward(self, reward: jax.Array) -> jax.Array:
        code = _reward_code(reward, self.reward_low, self.reward_unit, len(self.reward_table))
        return jnp.asarray(self.reward_table)[code]


def phrases_of(
    form: str,
    *,
    n_observations: int,
    n_actions: int,
    reward_range: tuple[float, float],
    shows_reward: bool,
    words: str,
) -> Phrases:
    """The texts of a family's fields.

    Args:
      form: one of FORMS.
      words: a few sentences on the problems of the family.

    Raises:
      UserError: an unknown form, too many actions or rewards for it.
    """
    if form not in FORMS:
        raise unknown("form of text", form, FORMS)
    f = FORMS[form]
    if not n_observations:
        raise UserError(f"text {form} has no words for observations of several features: set layout transition")
    if n_actions > len(f.action_names):
        raise UserError(f"text {form} has names for {len(f.action_names)} actions, the family has {n_actions}")
    actions = tuple(f.action.format(name) for name in f.action_names[:n_actions])
    rewards, low, unit = _rewards(f, reward_range, shows_reward)
    return Phrases(
        opening=f.opening.format(words=words, actions=", ".join(actions)),
        episode=f.episode,
        observations=tuple(f.observation.format(i) for i in range(n_observations)),
        actions=actions,
        rewards=tuple(rewards),
        reward_low=low,
        reward_unit=unit,
    )


def text_layout(
    form: str, phrases: Phrases, encode: Callable[[str], list[int]], vocabulary: int, bos: int | None, horizon: int
) -> TextLayout:
    """The layout of a family's texts for the tokenizer of a model.

    Args:
      form: the form of the phrases, for messages.
      encode: a text's ids, without any that the tokenizer would add.
      bos: the id that begins every text, if the model has one.

    Raises:
      UserError: an action that is no token of its own, fields whose ids depend on their neighbours.
    """
    action_ids = [encode(action) for action in phrases.actions]
    for action, ids in zip(phrases.actions, action_ids):
        if len(ids) != 1:
            raise UserError(
                f"text {form}: the tokenizer splits the action {action!r} into {len(ids)} tokens: "
                "choose another form with config.text"
            )
    if len({ids[0] for ids in action_ids}) < len(phrases.actions):
        raise UserError(f"text {form}: the tokenizer gives two actions one token: choose another form with config.text")
    layout = TextLayout(
        size=vocabulary,
        horizon=horizon,
        opening_ids=(*([] if bos is None else [bos]), *encode(phrases.opening)),
        episode_ids=tuple(encode(phrases.episode)),
        observation_table=_table(encode, phrases.observations),
        action_table=tuple(ids[0] for ids in action_ids),
        reward_table=_table(encode, phrases.rewards),
        reward_low=phrases.reward_low,
        reward_unit=phrases.reward_unit,
    )
    _check_parts(form, encode, phrases)
    return layout


def _reward_code(reward: Any, low: float, unit: float, n: int) -> Any:
    """Which of n texts a reward has (half to even); for arrays of numpy and of JAX."""
    return ((reward - low) / unit).round().astype(np.int32).clip(0, n - 1)


def _rewards(f: Form, reward_range: tuple[float, float], shows_reward: bool) -> tuple[list[str], float, float]:
    """The text of every reward from the lowest to the highest, the lowest, and how far apart they are."""
    low, high = reward_range
    if not shows_reward:
        return [f.reward.format("-")], low, 1.0
    if f.decimals is None:
        return [f.reward.format(i) for i in range(LEVELS + 1)], low, max(high - low, 1e-9) / LEVELS
    unit = 10.0**-f.decimals
    first, last = round(low / unit), round(high / unit)
    if last - first >= MOST_REWARDS:
        raise UserError(f"rewards from {low} to {high} have {last - first + 1:,} texts: choose --config.text=terse")
    texts = [f.reward.format(f"{i * unit:.{f.decimals}f}") for i in range(first, last + 1)]
    return texts, first * unit, unit


def _table(encode: Callable[[str], list[int]], texts: Sequence[str]) -> tuple[tuple[int, ...], ...]:
    ids = [encode(text) for text in texts]
    width = max(map(len, ids))
    return tuple(_filled(row, width) for row in ids)


def _check_parts(form: str, encode: Callable[[str], list[int]], phrases: Phrases) -> None:
    """Raises UserError unless the ids of fields side by side are those of the text that they make.

    Every value of a field is tried beside every value of the next where the two can touch; what lies farther apart is
    held apart by a field between them.
    """
    opening, episode = phrases.opening, phrases.episode
    observations, actions, rewards = phrases.observations, phrases.actions, phrases.rewards

    def check(*parts: str):
        if encode("".join(parts)) != [i for part in parts for i in encode(part)]:
            raise UserError(
                f"text {form}: the tokenizer joins the fields {parts} into other tokens: "
                "choose another form with config.text"
            )

    for observation in observations:
        check(opening, episode, observation, actions[0], rewards[0])
        for action in actions:
            check(observation, action)
        for reward in (rewards[0], rewards[-1]):
            check(reward, observation)
    for reward in rewards:
        check(reward, observations[0])
        check(reward, episode, observations[0])
        for action in actions:
            check(action, reward)


def _filled(ids: Sequence[int], width: int) -> tuple[int, ...]:
    return (*[NOTHING] * (width - len(ids)), *ids)


def _filled_before(ids: jax.Array, width: int) -> jax.Array:
    """ids (..., n) filled with NOTHING on the left to (..., width)."""
    return jnp.pad(ids, [(0, 0)] * (ids.ndim - 1) + [(width - ids.shape[-1], 0)], constant_values=NOTHING)
