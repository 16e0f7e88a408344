"""A config as the user wrote it, turned once into the frozen, validated parts of the library."""

import dataclasses
import hashlib
import json

from icdm.errors import UserError
from icdm.evaluation.evaluate import EvaluationConfig
from icdm.learning.episode_pool import EPISODES
from icdm.learning.objectives import check_labels
from icdm.learning.train import TrainConfig
from icdm.models.transformer import ModelConfig
from icdm.oracles.certify import OracleConfig
from icdm.problems.family import Family, hides_state, parse_family
from icdm.trajectories.behavior import check_behavior
from icdm.trajectories.collect import ContextConfig
from icdm.trajectories.layouts import Layout, problem_of


@dataclasses.dataclass(frozen=True)
class Settings:
    """One experiment; the fields are those of experiments/configs/base.py."""

    seed: int
    family_name: str
    family: Family
    context: ContextConfig
    query_behavior: str
    layout: Layout
    model: ModelConfig
    pretrain: TrainConfig
    pretrain_mixture: tuple[Family, ...]
    pretrain_behavior: str
    fine_tune: TrainConfig
    labels: str
    temperature: float
    pool: int
    from_scratch: bool
    evaluation: EvaluationConfig
    oracle: OracleConfig
    mesh_model: int
    data: str
    data_labels: str
    single_steps: bool

    @classmethod
    def from_config(cls, config) -> "Settings":
        """Raises UserError for any value that cannot be run."""
        c = config.to_dict()
        family, layout = problem_of(c)
        pretrain, fine_tune = dict(c["pretrain"]), dict(c["fine_tune"])
        mixture = tuple(parse_family(text) for text in pretrain.pop("mixture"))
        own = {"labels": fine_tune.pop("labels"), "temperature": fine_tune.pop("temperature")}
        settings = cls(
            seed=c["seed"],
            family_name=c["family"],
            family=family,
            context=ContextConfig(**c["context"]),
            query_behavior=c["query_behavior"],
            layout=layout,
            model=ModelConfig(**c["model"]),
            pretrain_mixture=mixture,
            pretrain_behavior=pretrain.pop("behavior"),
            pretrain=TrainConfig(**pretrain),
            pool=fine_tune.pop("pool"),
            fine_tune=TrainConfig(**fine_tune),
            from_scratch=c["from_scratch"],
            evaluation=EvaluationConfig(**c["evaluation"]),
            oracle=OracleConfig(**c["oracle"]),
            mesh_model=c["mesh_model"],
            data=c["data"],
            data_labels=c["data_labels"],
            single_steps=c["single_steps"],
            **own,
        )
        settings.check()
        return settings

    def check(self) -> None:
        if hides_state(self.family) and self.data:
            raise UserError(f"family {self.family_name} hides its state: recorded data need a family that shows it")
        if hides_state(self.family) and self.context.episodes > EPISODES:
            episodes = self.context.episodes
            raise UserError(f"context.episodes {episodes}: where states are hidden, at most {EPISODES} are recorded")
        self.oracle.check("oracle")
        if not self.data:
            self.context.check(self.family)
        check_behavior(self.query_behavior, self.family)
        check_labels(self.labels, self.temperature)
        self.pretrain.check("pretrain")
        self.fine_tune.check("fine_tune")
        if self.pretrain.steps:
            if not self.pretrain_mixture:
                raise UserError("pretrain.mixture is empty: name a family, or set pretrain.steps to 0")
            if self.pretrain.batch % len(self.pretrain_mixture):
                raise UserError(
                    f"pretrain.batch {self.pretrain.batch}: give a multiple of the "
                    f"{len(self.pretrain_mixture)} families of pretrain.mixture"
                )
            for family in self.pretrain_mixture:
                check_behavior(self.pretrain_behavior, family)
        length = max(self.positions(f) for f in (self.family, *(self.pretrain_mixture if self.pretrain.steps else ())))
        if length > self.model.max_length:
            raise UserError(
                f"{self.context.episodes} context episodes and one more take {length} positions, the model's limit is "
                f"{self.model.max_length}: raise model.max_length, or lower context.episodes or the horizon"
            )

    def positions(self, family: Family) -> int:
        """Length of a row: the context and one episode of the family."""
        return (self.context.episodes + 1) * (family.horizon + 1) * self.layout.positions


def config_hash(config) -> str:
    """A short fingerprint of all fields of a config."""
    return hashlib.sha256(json.dumps(as_json(config), sort_keys=True).encode()).hexdigest()[:12]


def as_json(config) -> dict:
    """The config as plain JSON (tuples become lists)."""
    return json.loads(json.dumps(config.to_dict()))


def first_difference(ours: dict, theirs: dict, prefix: str = "") -> str | None:
    """'field (a here, b there)' of the first field in which two configs differ, or None."""
    for name in sorted(ours.keys() | theirs.keys()):
        a, b = ours.get(name), theirs.get(name)
        if isinstance(a, dict) and isinstance(b, dict):
            inner = first_difference(a, b, f"{prefix}{name}.")
            if inner:
                return inner
        elif a != b:
            return f"{prefix}{name} ({json.dumps(a)} now, {json.dumps(b)} there)"
    return None
