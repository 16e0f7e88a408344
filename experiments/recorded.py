"""What an experiment on recorded data learns from, and what it is measured on."""

import dataclasses
import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from icdm.errors import UserError
from icdm.evaluation.evaluate import Decider, TestTasks, planning_decider, solved_tasks
from icdm.evaluation.off_policy import LoggedEpisodes, estimated_behavior, off_policy_values
from icdm.evaluation.summary import interval
from icdm.learning.recorded import label_logits, label_loss, label_losses
from icdm.logs import dpt
from icdm.logs.convert import to_table
from icdm.logs.labels import relabelled
from icdm.logs.loader import Log, assemble, batches, draw_episodes, load, sequence_length, sequences
from icdm.logs.table import is_table, open_table, plain_codings, write_table
from icdm.models.policy import TransformerPolicy
from icdm.models.transformer import Transformer
from icdm.problems.policy import Sampled
from icdm.readers.bandit import RULES, BanditPolicy, best_arm_probabilities
from icdm.readers.counts_planners import planners_of
from icdm.readers.dark_room import optimal_action_probabilities
from icdm.runs.settings import Settings
from icdm.trajectories.collect import draw_problems
from icdm.trajectories.layouts import NOTHING

MOST_LOGGED = 5000  # held-out episodes from which a policy is valued
HELD_OUT = 10  # without a test split of its own, every tenth task (or episode of a single task) is held out


@dataclasses.dataclass(frozen=True)
class RecordedData:
    """The log that is learned from, the log that is held out, and the unseen tasks if there is a simulator.

    Attributes:
      problems: N problems in float64 on which deciders act, or None.
      contexts: episodes of `test` that are shown in each of them, (N, R, K), or None.
    """

    settings: Settings
    train: Log
    test: Log
    problems: object | None
    contexts: np.ndarray | None

    def __post_init__(self):
        s, log = self.settings, self.train
        if log.end > s.family.n_states or log.action.max() >= s.family.n_actions or log.longest > s.family.horizon:
            raise UserError(
                f"{s.data} has {log.end} observations, {log.action.max() + 1} actions, episodes of {log.longest} steps: "
                f"family {s.family_name} has {s.family.n_states}, {s.family.n_actions}, horizon {s.family.horizon}"
            )
        if s.single_steps != (log.longest == 1 < s.family.horizon):
            raise UserError(
                f"the longest episode of {s.data} has {log.longest} steps: set config.single_steps accordingly"
            )
        length = sequence_length(log, s.context.episodes) * (log.longest + 1) * s.layout.positions
        if length > s.model.max_length:
            raise UserError(f"a sequence takes {length} positions: raise model.max_length, now {s.model.max_length}")

    def batches(self, batch: int):
        s = self.settings
        return batches(self.train, batch, s.context.episodes, s.seed, getattr(s.family, "symmetry", None))

    def loss(self, model: Transformer, sequences, key):
        del key
        s = self.settings
        return label_loss(model, s.layout, sequences, s.family.n_actions), sequences.present.sum() * s.layout.positions

    def held_out_losses(self, model: Transformer) -> np.ndarray:
        """Cross-entropy of the labels of each held-out task, mean over what was shown, at least one step: (N,)."""
        s = self.settings
        shown = sequences(self.test, np.arange(self.test.n_tasks), s.context.episodes, np.random.default_rng(s.seed))
        label = shown.label.copy()
        label[:, 0, 0] = NOTHING  # before anything was shown
        shown = dataclasses.replace(shown, label=label)
        losses = jax.jit(lambda model, part: label_losses(model, s.layout, part, s.family.n_actions))
        parts = np.array_split(np.arange(len(label)), max(1, len(label) // 500))
        found = [np.asarray(losses(model, jax.tree.map(lambda x: x[rows], shown)), np.float64) for rows in parts]
        return np.concatenate(found).sum(1) / np.maximum((label != NOTHING).sum((1, 2)), 1)

    def bayes_losses(self) -> np.ndarray | None:
        """The same for a reader who knows the family, where its posterior is known."""
        s, path = self.settings, pathlib.Path(self.settings.data)
        if path.suffix != ".npz":
            return None
        arrays = dpt.load(path, "test")
        if s.family_name == "bandit":
            found = best_arm_probabilities(arrays["actions"], arrays["rewards"], s.family.arms, s.family.noise)
        else:
            cell = lambda x: x[..., 0].astype(int) * s.family.size + x[..., 1]  # noqa: E731
            args = cell(arrays["next_states"]), arrays["rewards"], cell(arrays["query"])
            found = optimal_action_probabilities(*args, s.family)
        right = np.take_along_axis(found, arrays["optimal"].astype(int)[:, None, None], -1)[:, 1:, 0]
        return -np.log(np.maximum(right, 1e-12)).mean(1)

    def test_tasks(self, key: jax.Array) -> TestTasks:
        s = self.settings
        test = solved_tasks(s.family, self.problems, s.oracle, s.evaluation.episodes, key)
        if self.contexts is None:
            return test
        context = assemble(self.test, self.contexts.reshape(-1, self.contexts.shape[-1])).trajectories
        return dataclasses.replace(test, context=jax.tree.map(jnp.asarray, context))

    def deciders(self, models: dict[str, Transformer]) -> dict[str, Decider]:
        """The references, and every model acting greedily and sampling, with the context and without."""
        s = self.settings
        found: dict[str, Decider] = {"oracle": lambda tasks, task_B, context, key: tasks.oracle}
        if s.family_name == "bandit":
            for rule in RULES:
                found[rule] = _always(BanditPolicy(rule, s.family.arms, s.family.noise))
        if self.contexts is not None:
            for planner in planners_of(s.family):
                found[planner] = planning_decider(s.family, planner)

        def transformer(model, shown, wrap=lambda policy: policy):
            def decide(tasks, task_B, context, key):
                context = context if shown else None
                return wrap(TransformerPolicy(model, context, s.layout, s.family.n_actions, s.single_steps))

            return decide

        for name, model in models.items():
            found[name] = transformer(model, True)
        found["fine_tuned_sampled"] = transformer(models["fine_tuned"], True, Sampled)
        if self.contexts is not None:
            found["no_context"] = transformer(models["fine_tuned"], False)
            found["no_context_sampled"] = transformer(models["fine_tuned"], False, Sampled)
        return found

    def logged_policies(self, models: dict[str, Transformer]) -> tuple[dict, dict]:
        """Where nothing can be simulated: (policies with their values, all off-policy estimates).

        `behavior` is the mean return of the held-out episodes; a model, drawing its actions, is valued by
        the doubly robust estimate from them, each with K other episodes of its task as context.
        """
        s, log, rng = self.settings, self.test, np.random.default_rng(self.settings.seed)
        several = max(1, MOST_LOGGED // log.n_tasks)
        task_B = np.repeat(np.arange(log.n_tasks), [min(several, len(c)) for c in log.contexts])
        episode_BE = draw_episodes(log, task_B, s.context.episodes, rng)
        there_BE = episode_BE != NOTHING
        last_B = there_BE.shape[1] - 1 - there_BE[:, ::-1].argmax(1)
        shown, row = assemble(log, episode_BE), np.arange(len(task_B))
        taken = jax.tree.map(lambda x: x[row, last_B], shown.trajectories)
        logits = jax.jit(lambda model, part: label_logits(model, s.layout, part, s.family.n_actions))
        first = log.first[episode_BE[row, last_B]][:, None] + np.arange(log.longest)
        behavior = np.where(taken.valid, log.behavior[np.minimum(first, len(log.behavior) - 1)], 1.0)
        sizes = s.family.n_states, s.family.n_actions
        known = bool(np.isfinite(behavior).all())
        if not known:
            behavior = estimated_behavior(taken.observation, taken.action, taken.valid, *sizes)
        logged = LoggedEpisodes(
            taken.observation, taken.action, taken.reward.astype(np.float64), taken.valid, behavior, *sizes
        )
        returns = np.where(taken.valid, taken.reward, 0).sum(1).astype(np.float64)
        policies, estimates = {"behavior": {"value": interval(returns)}}, {}
        for name, model in models.items():
            parts = np.array_split(row, max(1, len(row) // 500))
            found = [np.asarray(logits(model, jax.tree.map(lambda x: x[part], shown)), np.float64) for part in parts]
            z = np.concatenate(found).reshape(*shown.label.shape, -1)[row, last_B, : log.longest]
            target = np.exp(z - z.max(-1, keepdims=True))
            values = off_policy_values(logged, target / target.sum(-1, keepdims=True))
            estimates[f"{name}_sampled"] = values
            best = {
                "mean": values["dr"]["mean"],
                "ci95": values["dr"]["ci95"],
                "n_tasks": values["dr"]["n_episodes"],
            }
            policies[f"{name}_sampled"] = {"value": best}
        return policies, {
            "behavior_probabilities": "recorded" if known else "estimated",
            "estimates": estimates,
        }

    def results(self, models: dict[str, Transformer], policies: dict[str, dict]) -> dict:
        """What results.json holds beside the policies."""
        found = {"test_cross_entropy": interval(self.held_out_losses(models["fine_tuned"]))}
        bayes = self.bayes_losses()
        if bayes is not None:
            found["bayes_cross_entropy"] = interval(bayes)
        if self.problems is not None:
            online = "fine_tuned" if self.contexts is None else "no_context"
            found["online_regret"] = policies[online]["regret"]
            found["online_regret_sampled"] = policies[f"{online}_sampled"]["regret"]
        found["data"] = {"file": self.settings.data, "labels": self.settings.data_labels}
        return found


def open_data(s: Settings, workdir: pathlib.Path) -> RecordedData:
    """Reads the data file of an experiment; what is not a table yet is converted into the work directory.

    Raises:
      UserError: a defect of the file, or a file that does not fit the family.
    """
    path = pathlib.Path(s.data)
    if not path.exists():
        raise UserError(f"--config.data={path}: no such file")
    problems = contexts = None
    if path.suffix == ".npz":
        if s.family_name not in ("bandit", "dark_room"):
            raise UserError(f"{path} goes with the families bandit and dark_room, not {s.family_name}")
        train, test = (_log_of_split(s, path, workdir, split) for split in ("train", "test"))
        problems, contexts = _peer_tasks(s, path, test)
    else:
        table = open_table(path) if is_table(path) else to_table(path, workdir / "data.parquet")[0]
        train, test = hold_out(load(table))
        if s.family_name != "recorded":
            problems = draw_problems(s.family, jax.random.key(s.seed), s.family.n_tasks or s.evaluation.tasks)
    return RecordedData(
        s,
        relabelled(train, s.data_labels, s.family),
        relabelled(test, s.data_labels, s.family),
        problems,
        contexts,
    )


def hold_out(log: Log) -> tuple[Log, Log]:
    """(what is learned from, what is held out): other tasks, or other episodes where there is only one task."""
    if log.n_tasks >= 2:
        index = np.arange(log.n_tasks)
        held = index % HELD_OUT == HELD_OUT - 1 if log.n_tasks >= HELD_OUT else index == log.n_tasks - 1
        return log.tasks(index[~held]), log.tasks(index[held])
    episodes = log.contexts[0]
    held = np.arange(len(episodes)) % HELD_OUT == HELD_OUT - 1
    if not held.any():
        raise UserError(f"a single task with {len(episodes)} episodes: at least {HELD_OUT} are needed to hold some out")
    return dataclasses.replace(log, contexts=[episodes[~held]]), dataclasses.replace(log, contexts=[episodes[held]])


def _log_of_split(s, path, workdir, split):
    codings = plain_codings(s.family.n_states, s.family.n_actions)
    rows = dpt.rows_of(path, split)
    if split == "train" and s.family_name == "dark_room":
        arrays = dpt.shifted(dpt.load(path, split), np.random.default_rng(s.seed))
        rows = dpt.dark_room_rows(arrays, by_goal=True)
    return load(write_table(workdir / f"{split}.parquet", [rows], codings))


def _peer_tasks(s, path, test):
    """The unseen tasks of the peer's file, and the episodes of its test split that are shown in each."""
    with jax.enable_x64(True):
        if s.family_name == "bandit":
            means = dpt.load(path, "eval")["means"].astype(np.float64)
            return jax.vmap(s.family.problem)(jnp.asarray(means)), None
        goals = dpt.load(path, "test")["goal"].astype(int)
        goals, which = np.unique(goals[:, 0] * s.family.size + goals[:, 1], return_inverse=True)
        problems = jax.vmap(s.family.problem)(jax.nn.one_hot(jnp.asarray(goals), s.family.n_states))
    R = s.evaluation.episodes
    rows = [np.flatnonzero(which == i) for i in range(len(goals))]
    if min(map(len, rows)) < R:
        raise UserError(f"evaluation.episodes {R}: {path} holds contexts for {min(map(len, rows))} in each task")
    return problems, np.stack([[test.contexts[row] for row in of_goal[:R]] for of_goal in rows])


def _always(policy) -> Decider:
    return lambda tasks, task_B, context, key: policy
