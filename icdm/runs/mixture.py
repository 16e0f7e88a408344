"""A mixture of families to fine-tune on: its parts, and the one vocabulary in which all of them are written."""

import dataclasses
from typing import Any

from icdm.errors import UserError, unknown
from icdm.evaluation.unseen import context_of
from icdm.learning.planned import TEACHERS
from icdm.problems.family import CanSample, Family, HasPosterior, parse_family
from icdm.runs.values import check_values
from icdm.trajectories.collect import ContextConfig
from icdm.trajectories.layouts import Layout, make_layout
from icdm.trajectories.layouts.vocabulary import Vocabulary

LEAST_UNIT = 1e-6  # of rewards in a family in which a model of a mixture acts
PART = dict(family="random_mdp", context="uniform:10", teacher="oracle", rows=1)  # fields of a part, as in a config


@dataclasses.dataclass(frozen=True)
class MixturePart:
    """Rows of one family in a mixture.

    Attributes:
      context: of at most so many episodes.
      teacher: whose Q the labels carry.
      rows: how many of a step's rows; 0 for a family that only has its names in the vocabulary.
      layout: in which they are written.
    """

    family: Family
    context: ContextConfig
    teacher: str
    rows: int
    layout: Layout


def mixture_of(c: dict[str, Any], mixture: dict[str, dict], names: int) -> tuple[MixturePart, ...]:
    """The parts of a mixture of fully observed families with rewards in [-1, 1], written in one vocabulary.

    Raises:
      UserError: a part that cannot be run.
    """
    if c["layout"] != "transition":
        raise UserError(f"fine_tune.mixture with layout {c['layout']}: set layout to transition")
    if not all(isinstance(fields, dict) for fields in mixture.values()):
        raise UserError(f"fine_tune.mixture: give {', '.join(PART)} for each part")
    parts = {name: PART | fields for name, fields in mixture.items()}
    for name, fields in parts.items():
        check_values(fields, PART, f"fine_tune.mixture.{name}.")
    families = {name: parse_family(fields["family"]) for name, fields in parts.items()}
    for name, family in families.items():
        low, high = family.reward_range
        field = f"fine_tune.mixture.{name}.family"
        if family.hides_state or not isinstance(family, CanSample) or low < -1 or high > 1:
            raise UserError(f"{field}: give one that shows its state, has a simulator, and pays from -1 to 1")
        if family.observation_space.n > names:
            raise UserError(f"{field} has {family.observation_space.n} states: raise fine_tune.names, now {names}")
        check_teacher(f"fine_tune.mixture.{name}.teacher", parts[name]["teacher"], family, parts[name]["family"])
    first, *others = families.values()
    layout = make_layout("transition", first, others, reward_bins=c["reward_bins"])
    layout = dataclasses.replace(layout, n_observations=names, sides=())
    found = []
    for name, family in families.items():
        context = context_of(parts[name]["context"], ContextConfig(**c["context"]), f"fine_tune.mixture.{name}.context")
        context.check(family)
        found.append(
            MixturePart(family, context, parts[name]["teacher"], parts[name]["rows"], _written(layout, family))
        )
    return tuple(found)


def _written(layout: Vocabulary, family: Family) -> Vocabulary:
    """The layout of another family with the same vocabulary: its last steps have the names of the last steps there."""
    low, high = family.reward_range
    return dataclasses.replace(
        layout,
        family_actions=family.n_actions,
        first_step=layout.horizon - family.horizon,
        reward_low=low,
        reward_high=high,
    )


def acting_layout(parts: tuple[MixturePart, ...], family: Family) -> Vocabulary:
    """The layout in which a model of a mixture acts in a family; rewards are divided by the largest there.

    Raises:
      UserError: the family has more states or actions than the mixture's vocabulary.
    """
    layout = parts[0].layout
    for what, n, limit in (
        ("states", family.observation_space.n, layout.n_observations),
        ("actions", family.n_actions, layout.n_actions),
    ):
        if n > limit:
            raise UserError(f"{n} {what}, the model has names for {limit}: group them, or train a run of its own")
    if family.hides_state:
        raise UserError("the model of a mixture acts where states are observed: choose another family")
    return dataclasses.replace(_written(layout, family), least_unit=LEAST_UNIT)


def check_teacher(field: str, teacher: str, family: Family, name: str) -> None:
    """Raises UserError for a teacher that there is not, or that needs a posterior which the family has not."""
    if teacher not in TEACHERS:
        raise unknown(field, teacher, TEACHERS)
    if teacher != "oracle" and not isinstance(family, HasPosterior):
        raise UserError(f"{field} {teacher}: family {name} computes no posterior")
