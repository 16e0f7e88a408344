"""A config as the user wrote it: every field with its default, and the frozen, validated parts of the library."""

import dataclasses
import hashlib
import json
import math
import shlex
from collections.abc import Mapping
from typing import Any

from icdm.errors import UserError, unknown
from icdm.evaluation.unseen import EvaluationConfig
from icdm.learning.objectives import LabelConfig
from icdm.learning.sources import EPISODES
from icdm.learning.train import TrainConfig
from icdm.models.transformer import MATRICES, ModelConfig
from icdm.oracles.certify import OracleConfig
from icdm.problems.family import CanSample, Family, HasWords, make_family, parse_family
from icdm.readers.completions import EndpointConfig, parse_endpoint
from icdm.runs.mixture import MixturePart, acting_layout, check_teacher, mixture_of
from icdm.runs.values import FREE, check_values
from icdm.trajectories.behavior import check_behavior
from icdm.trajectories.collect import ContextConfig
from icdm.trajectories.layouts import Layout, make_layout
from icdm.trajectories.layouts.text import Phrases, phrases_of, text_layout

A_DAY = 86_400.0  # seconds
DISPLAYED = ("published", "tensorboard")  # fields that change nothing of what is computed


def defaults() -> dict[str, Any]:
    """Every field of a config; a file under experiments/configs says where it differs."""
    optimizer = dict(
        batch=64,
        learning_rate=2e-3,
        warmup=50,
        weight_decay=0.01,
        clip=1.0,
        lora_rank=0,  # above 0: trains adapters beside the weights
        lora_alpha=16.0,
        lora_dropout=0.0,
        lora_targets=MATRICES,
        checkpoint_every=250,
        log_every=25,
        validate_every=0,  # steps between two looks at held-out tasks; fine_tune.validation: their share
        patience=5,  # looks without a lower loss after which training ends
    )
    return dict(
        seed=0,
        # The problem: a family's name, the decisions in an episode, and its other parameters (see icdm/families). The
        # family recorded takes from its data file those that are not given, and the horizon where it is 0.
        family="energy",
        horizon=5,
        problem=dict(),
        # What a decider reads: K context episodes of a behavior. In training one more follows, of the query behavior.
        context=dict(episodes=2, behavior="oracle", epsilon=0.2),
        query_behavior="mixture",  # oracle, uniform, epsilon_greedy, mixture, expert, posterior_sampling
        # A file of recorded trajectories to learn from in place of the family's own, and what is learned from it.
        data="",
        columns="",  # those of another name in the file, as "observation=hr action=dose"
        data_labels="oracle",  # imitation, best_return, pessimistic
        # Where observations of the file have several features: at how many quantiles the numbers that a model reads of
        # a feature begin and end (2: a linear map; 0: it reads the states), and how many states k-means makes at most.
        features=dict(edges=24, states=300),
        # How it is written down, and who reads it.
        layout="transition",  # interleaved, single_steps, text
        reward_bins=16,
        text="terse",  # the form of layout text: paper, terse, words, chat
        # A language model to start from, with layout text: a Hugging Face directory, a .gguf file, or package:NAME. Its
        # shape takes the place of the fields of model other than max_length, dtype and remat.
        weights="",
        weights_drawn=False,  # starts from random weights of that shape instead: what the pretraining is worth
        model=dict(
            width=64,
            layers=4,
            heads=4,
            kv_heads=4,
            hidden=128,
            mlp="gated",
            mixing=0,
            rotary_base=10_000.0,
            tied=False,  # one layer, applied `layers` times over
            prefix=False,  # the positions of a context attend to one another in both directions
            max_length=1024,
            dtype="float32",
            remat=False,  # computes activations again in the backward pass: less memory, more time
        ),
        # How it learns: next token on a mixture of families, then the oracle's action on this one.
        pretrain=dict(steps=300, mixture=("energy:horizon=5",), behavior="mixture", **optimizer),
        # `teacher`: whose Q the labels carry, the oracle's or that of posterior_mean, which reads the same context;
        # `iterates`: earlier layers are asked for the Q with fewer rewards to come; `mixture`: rows of several families
        # in place of the experiment's own, {name: {family, context, teacher, rows}}, states under `names` names;
        # `start`: an exported model of a mixture, whose weights such training starts from.
        fine_tune=dict(
            steps=500,
            labels="boltzmann",
            temperature=0.1,
            teacher="oracle",
            iterates=False,
            mixture=dict(),
            names=0,
            start="",
            pool=0,
            validation=0.0,
            **optimizer,
        ),
        from_scratch=False,  # also train without pretraining, on equally many tokens
        # How exactly hidden states are solved, for training labels and for unseen tasks: to a bracket of this share of
        # the value, or with this many belief points.
        label_oracle=dict(tolerance=0.02, points=48, time_limit=A_DAY),
        test_oracle=dict(tolerance=0.005, points=112, time_limit=120.0),
        # How it is measured.
        # `contexts`: further ones in which models are measured, "BEHAVIOR:EPISODES" each, for instance "oracle:4".
        # `planners`: further references, optimistic and pessimistic certainty equivalence. `own_episodes`: in how many
        # episodes of each task deciders explore from nothing.
        evaluation=dict(tasks=100, episodes=4, rows=2000, contexts=(), planners=(), own_episodes=0),
        # Models behind OpenAI-compatible servers, endpoint:URL#MODEL, that read the same contexts as text (see `text`).
        policies=(),
        endpoint=dict(timeout=60.0, tries=3, at_once=4),
        mesh_model=1,  # devices that share one copy of the weights
        mesh_fsdp=False,  # whether those that share a batch share the weights too
        tensorboard=False,  # metrics also as event files, in DIR/tensorboard (extra `tensorboard`)
        # Gaps in % as a paper prints them, {"FAMILY:horizon=T": {policy: text}}, shown beside ours.
        published=dict(),
    )


DATA_LABELS = ("oracle", "imitation", "best_return", "pessimistic")  # the keys of `icdm.logs.labels.LABELS`


def completed(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config as config.json holds it, with the defaults of the fields that were added after it was written.

    Raises:
      UserError: a group that is not one.
    """
    c = dict(config)
    if "oracle" in c:  # said how unseen tasks are solved, before labels had a field of their own
        c["test_oracle"] = c.pop("oracle")
    if c.pop("single_steps", False):  # a field before it was a layout
        c["layout"] = "single_steps"
    every = json.loads(json.dumps(defaults()))
    for name, value in every.items():
        if isinstance(value, dict) and name not in FREE:
            if not isinstance(c.get(name, {}), dict):
                raise UserError(f"{name} {c[name]!r}: give its fields, such as {name}.{next(iter(value))}")
            c[name] = value | c.get(name, {})
    return every | c


@dataclasses.dataclass(frozen=True)
class Settings:
    """One experiment; the fields are those of `defaults`."""

    seed: int
    family_name: str
    family: Family
    context: ContextConfig
    query_behavior: str
    layout: Layout
    text: str
    model: ModelConfig
    weights: str
    weights_drawn: bool
    pretrain: TrainConfig
    pretrain_mixture: tuple[Family, ...]
    pretrain_behavior: str
    fine_tune: TrainConfig
    labels: LabelConfig
    teacher: str
    iterates: bool
    mixture: tuple[MixturePart, ...]
    first_weights: str
    pool: int
    validation: float
    from_scratch: bool
    evaluation: EvaluationConfig
    label_oracle: OracleConfig
    test_oracle: OracleConfig
    policies: tuple[str, ...]
    endpoint: EndpointConfig
    mesh_model: int
    mesh_fsdp: bool
    tensorboard: bool
    data: str
    columns: tuple[str, ...]
    data_labels: str
    edges: int
    published: dict[str, str]

    @classmethod
    def from_config(cls, config: Any) -> "Settings":
        """The settings of a config (a ConfigDict, or the content of config.json).

        The vocabulary has room for the families of the pretraining mixture, and, where recorded data are learned
        from, for the end of an episode after which nothing was recorded.

        Raises:
          UserError: any value that cannot be run.
        """
        c = completed(as_json(config))
        check_values(c, json.loads(json.dumps(defaults())))
        for name in c["problem"].keys() & {"name", "horizon"}:
            raise UserError(f"problem.{name}: no parameter of a problem; set {'family' if name == 'name' else name}")
        family = make_family(c["family"], horizon=c["horizon"], **c["problem"])
        pretrain, fine_tune = dict(c["pretrain"]), dict(c["fine_tune"])
        mixture = tuple(parse_family(text) for text in pretrain.pop("mixture"))
        names, parts = fine_tune.pop("names"), fine_tune.pop("mixture")
        parts = mixture_of(c, parts, names) if parts else ()
        model, layout = _model_and_layout(c, family, mixture, parts)
        settings = cls(
            seed=c["seed"],
            family_name=c["family"],
            family=family,
            context=ContextConfig(**c["context"]),
            query_behavior=c["query_behavior"],
            layout=layout,
            text=c["text"],
            model=model,
            weights=c["weights"],
            weights_drawn=c["weights_drawn"],
            pretrain_mixture=mixture,
            pretrain_behavior=pretrain.pop("behavior"),
            pretrain=TrainConfig(**pretrain),
            labels=LabelConfig(fine_tune.pop("labels"), fine_tune.pop("temperature")),
            teacher=fine_tune.pop("teacher"),
            iterates=fine_tune.pop("iterates"),
            mixture=parts,
            first_weights=fine_tune.pop("start"),
            pool=fine_tune.pop("pool"),
            validation=fine_tune.pop("validation"),
            fine_tune=TrainConfig(**fine_tune),
            from_scratch=c["from_scratch"],
            evaluation=EvaluationConfig(
                **c["evaluation"] | {name: tuple(c["evaluation"][name]) for name in ("contexts", "planners")}
            ),
            label_oracle=OracleConfig(**c["label_oracle"]),
            test_oracle=OracleConfig(**c["test_oracle"]),
            policies=tuple(c["policies"]),
            endpoint=EndpointConfig(**c["endpoint"]),
            mesh_model=c["mesh_model"],
            mesh_fsdp=c["mesh_fsdp"],
            tensorboard=c["tensorboard"],
            data=c["data"],
            columns=columns_of(c["columns"]),
            data_labels=c["data_labels"],
            edges=c["features"]["edges"],
            published=c["published"].get(f"{c['family']}:horizon={c['horizon']}", {}),
        )
        settings.check()
        return settings

    def check(self) -> None:
        """Raises UserError for values that do not go together."""
        if self.family.hides_state and self.data:
            raise UserError(f"family {self.family_name} hides its state: recorded data need a family that shows it")
        if not self.data and not self.mixture and not isinstance(self.family, CanSample):
            raise UserError(f"family {self.family_name} has no simulator: name its file with --config.data=FILE")
        if self.family.hides_state and self.context.episodes > EPISODES:
            episodes = self.context.episodes
            raise UserError(f"context.episodes {episodes}: where states are hidden, at most {EPISODES} are recorded")
        if self.columns and not self.data:
            raise UserError("columns names those of a data file: give --config.data=FILE with it")
        if self.edges == 1:
            raise UserError("features.edges 1: give 2 for a linear map, more for one in pieces, 0 to read states")
        if self.data_labels not in DATA_LABELS:
            raise unknown("data_labels", self.data_labels, DATA_LABELS)
        contexts = [self.context, *self.evaluation.further(self.context).values()]
        if not self.data:
            for context in contexts:
                context.check(self.family)
        check_behavior(self.query_behavior, self.family)
        self._check_endpoints()
        if self.model.prefix and self.pretrain.steps:
            raise UserError("model.prefix: pretraining must not see what it predicts, set pretrain.steps to 0")
        if self.model.prefix and self.data:
            raise UserError(
                "model.prefix: rows of recorded data differ in the length of their contexts, set it to False"
            )
        self.labels.check()
        self.pretrain.lora.check("pretrain")
        self.fine_tune.lora.check("fine_tune")
        self._check_teacher()
        self._check_mixture()
        self._check_validation()
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
        played = (*(() if self.data else (self.family,)), *(self.pretrain_mixture if self.pretrain.steps else ()))
        if self.evaluation.own_episodes and (self.family.hides_state or self.data):
            raise UserError("evaluation.own_episodes needs a simulator whose states are observed: set it to 0")
        episodes = max(*(context.episodes for context in contexts), self.evaluation.own_episodes - 1)
        lengths = [self.positions(family, episodes) for family in played]
        lengths += [self.positions(part.family, part.context.episodes) for part in self.mixture]
        length = max(lengths, default=0)
        if length > self.model.max_length:
            raise UserError(
                f"{episodes} context episodes and one more take {length} positions, the model's limit is "
                f"{self.model.max_length}: raise model.max_length, or lower context.episodes, the horizon or "
                "evaluation.own_episodes"
            )

    @property
    def ahead(self) -> tuple[int, ...]:
        """How many rewards ahead the stream after each earlier layer is asked for values too, from the first on; all of
        them, as after the last, where layers are tied: their number is chosen at use."""
        earlier = range(1, self.model.layers)
        if self.model.tied:
            horizon = max(self.family.horizon, *(part.family.horizon for part in self.mixture), 0)
            return tuple(horizon for _ in earlier)
        return tuple(earlier) if self.iterates else ()

    @property
    def is_planned(self) -> bool:
        """Whether labels come from a table of Q-values (`icdm.learning.planned`)."""
        return self.teacher != "oracle" or bool(self.ahead)

    def _check_teacher(self) -> None:
        if not self.mixture:
            check_teacher("fine_tune.teacher", self.teacher, self.family, self.family_name)
        if self.is_planned and (self.data or self.family.hides_state or self.labels.labels == "tokens"):
            raise UserError(
                "fine_tune.teacher, fine_tune.iterates and model.tied need Q-values of states: a family that shows its "
                "state, no recorded data, and labels other than tokens"
            )
        if self.model.tied and (self.iterates or self.pretrain.steps or self.fine_tune.lora_rank):
            raise UserError(
                "model.tied: every loop is asked for the same, and has no adapters of its own; set fine_tune.iterates "
                "to False, pretrain.steps and fine_tune.lora_rank to 0"
            )

    def _check_mixture(self) -> None:
        if not self.mixture:
            if self.first_weights:
                raise UserError("fine_tune.start goes with fine_tune.mixture: for a language model set weights")
            return
        if self.labels.labels not in ("advantage", "argmax"):
            raise UserError(f"fine_tune.mixture with fine_tune.labels={self.labels.labels}: set advantage or argmax")
        if self.data or self.pretrain.steps or self.from_scratch:
            raise UserError("fine_tune.mixture goes without data, pretrain.steps and from_scratch: leave them out")
        if (rows := sum(part.rows for part in self.mixture)) != self.fine_tune.batch:
            raise UserError(
                f"fine_tune.mixture has {rows} rows, fine_tune.batch is {self.fine_tune.batch}: make them equal"
            )

    def _check_validation(self) -> None:
        if bool(self.validation) != bool(self.fine_tune.validate_every):
            raise UserError("fine_tune.validation and fine_tune.validate_every go together: set both, or neither")
        if not 0 <= self.validation < 1 or (self.validation and not self.data and self.pool < 2):
            raise UserError(
                f"fine_tune.validation {self.validation}: the share of fine_tune.pool that is held out; give a number "
                f"from 0 to below 1, and a pool of at least 2 tasks, now {self.pool}"
            )
        if self.pretrain.validate_every:
            raise UserError("pretrain.validate_every: only fine-tuning holds tasks out, set it to 0")

    @property
    def starts_published(self) -> bool:
        """Whether training starts from published weights."""
        return bool(self.weights) and not self.weights_drawn

    @property
    def n_held_out(self) -> int:
        """Tasks of the pool that training does not see."""
        return min(max(round(self.validation * self.pool), 1), self.pool - 1) if self.validation else 0

    def _check_endpoints(self) -> None:
        self.endpoint.check()
        if not self.policies:
            return
        for text in self.policies:
            parse_endpoint(text)
        _ = self.phrases
        if not isinstance(self.family, CanSample):
            raise UserError(
                f"policies act in unseen tasks, and family {self.family_name} has no simulator: leave them out"
            )

    def positions(self, family: Family, episodes: int) -> int:
        """Length of a row that is played: the opening, so many context episodes and one more of the family."""
        appends = (episodes + 1) * (family.horizon + 1)
        return len(self.layout.opening) + appends * self.layout.positions

    @property
    def phrases(self) -> Phrases:
        """The texts of trajectories, in whichever layout the run's own models read them.

        Raises:
          UserError: a family or a record that the form of text cannot show.
        """
        if self.layout.independent_steps:
            raise UserError("layout single_steps: steps that are independent of one another have no form of text")
        return _phrases(self.text, self.family)

    @property
    def equal_tokens(self) -> TrainConfig:
        """Fine-tuning alone, for as many steps as read the same number of positions as both phases."""
        episodes = self.context.episodes
        longest = max((self.positions(family, episodes) for family in self.pretrain_mixture), default=0)
        pretraining = self.pretrain.steps * self.pretrain.batch * longest
        extra = round(pretraining / (self.fine_tune.batch * self.positions(self.family, episodes)))
        return dataclasses.replace(self.fine_tune, steps=self.fine_tune.steps + extra)

    @property
    def value_scale(self) -> float:
        """What turns centred action logits into Q-values less their mean; nan if the labels carry no values."""
        if self.data or self.labels.labels in ("argmax", "tokens"):
            return math.nan
        return self.labels.temperature * (self.layout.reward_unit if self.mixture else 1.0)


def _model_and_layout(
    c: dict[str, Any], family: Family, mixture: tuple[Family, ...], parts: tuple[MixturePart, ...]
) -> tuple[ModelConfig, Layout]:
    """The shape of the model, and how it reads trajectories.

    Args:
      mixture: the families that it is pretrained on.
      parts: those of the mixture that it is fine-tuned on.
    """
    if parts:
        return ModelConfig(**c["model"]), acting_layout(parts, family)
    if bool(c["weights"]) != (c["layout"] == "text"):
        raise UserError("layout text is what a language model reads: give --config.weights together with it")
    if not c["weights"]:
        layout = make_layout(c["layout"], family, mixture, reward_bins=c["reward_bins"], marks_end=bool(c["data"]))
        return ModelConfig(**c["model"]), layout
    from icdm.published.model import adjusted, open_published  # needs the packages of the extra `language`

    published = open_published(c["weights"])
    layout = text_layout(
        c["text"],
        _phrases(c["text"], family),
        lambda text: published.tokenizer.encode(text, add_special_tokens=False).ids,
        published.vocabulary,
        published.bos,
        family.horizon,
    )
    chosen = {name: c["model"][name] for name in ("max_length", "dtype", "remat")}
    return adjusted(published, **chosen), layout


def columns_of(text: str) -> tuple[str, ...]:
    """The parts of a text, of which some may be in quotation marks, as a shell takes it apart."""
    try:
        return tuple(shlex.split(text))
    except ValueError as error:
        raise UserError(f"columns {text!r}: {error}".lower()) from None


def _phrases(form: str, family: Family) -> Phrases:
    """The texts of the family's fields."""
    return phrases_of(
        form,
        n_observations=family.observation_space.n,
        n_actions=family.n_actions,
        reward_range=family.reward_range,
        shows_reward=family.shows_reward,
        words=family.words() if isinstance(family, HasWords) else "",
    )


def as_json(config: Any) -> dict[str, Any]:
    """The config as plain JSON (tuples become lists)."""
    return json.loads(json.dumps(config, default=lambda group: group.to_dict()))


def config_hash(config: Any) -> str:
    """A short fingerprint of all fields of a config."""
    return hashlib.sha256(json.dumps(as_json(config), sort_keys=True).encode()).hexdigest()[:12]


def first_difference(ours: dict, theirs: dict, prefix: str = "") -> str | None:
    """'field (a here, b there)' of the first field that is computed with and in which two configs differ, or None."""
    for name in sorted((ours.keys() | theirs.keys()) - set(DISPLAYED)):
        a, b = ours.get(name), theirs.get(name)
        if isinstance(a, dict) and isinstance(b, dict):
            inner = first_difference(a, b, f"{prefix}{name}.")
            if inner:
                return inner
        elif a != b:
            return f"{prefix}{name} ({json.dumps(a)} now, {json.dumps(b)} there)"
    return None
