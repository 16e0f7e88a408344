"""One experiment: pretrain, fine-tune, evaluate, report; goes on from wherever an earlier start got to."""

import dataclasses
import json
import pathlib
import shutil
import time

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from experiments import report
from experiments.published import published_gaps
from experiments.recorded import open_data
from icdm.errors import UserError
from icdm.evaluation.evaluate import Decider, TestTasks, make_test_tasks, measure, measure_members, reference_deciders
from icdm.evaluation.summary import interval, mark_below_bracket, ratio, summarize, summarize_members
from icdm.evaluation.table import print_table
from icdm.learning.checkpoint import Checkpoints
from icdm.learning.episode_pool import EpisodePool
from icdm.learning.objectives import action_loss, next_token_loss
from icdm.learning.train import Stopped, TrainConfig, train
from icdm.models.policy import TransformerPolicy
from icdm.models.transformer import Transformer
from icdm.oracles.certify import OracleConfig
from icdm.problems.family import hides_state
from icdm.runs.monitor import Monitor, StopRequest
from icdm.runs.settings import Settings, as_json, config_hash, first_difference
from icdm.sharding import check_rows, make_mesh, place_rows
from icdm.trajectories.collect import HIDDEN_POOL, TaskStream, mixed_tokens, play, record_with_context

# Oracles of hidden states that act in what is pretrained on, but do not label it.
BEHAVING = OracleConfig(tolerance=1.0, points=1)

# Each part of an experiment has its own random numbers.
MODEL_KEY, PRETRAIN_KEY, FINE_TUNE_KEY, SCRATCH_KEY, EVALUATION_KEY = range(5)


def run(config, workdir: pathlib.Path) -> dict:
    """Runs (what is left of) an experiment in workdir; returns what results.json holds.

    Raises:
      UserError: the config or the directory cannot be used, or training failed.
      Stopped: SIGTERM or SIGINT asked it to stop, and it has saved.
    """
    if "sweep" in config:
        raise UserError("this config holds a sweep: run it with python -m experiments.sweep")
    settings = Settings.from_config(config)
    claim(workdir, config)
    stop = StopRequest()
    experiment = Experiment(settings, workdir, make_mesh(settings.mesh_model), stop)
    models = experiment.train_all()
    if experiment.data and experiment.data.problems is None:
        arrays = {}
        policies, off_policy = experiment.data.logged_policies(models)
        found = {"policies": policies, "off_policy": off_policy}
    else:
        arrays, method = experiment.evaluate(models)
        found = {"oracle": method} | summaries(arrays)
    results = {
        "family": settings.family_name,
        "config_hash": config_hash(config),
        "seeds": [settings.seed],
        **found,
        "seconds": experiment.seconds,
    }
    if experiment.data:
        results |= experiment.data.results(models, results["policies"])
    np.savez(workdir / "values.npz", **arrays)
    write_json(workdir / "results.json", results)
    published = published_gaps(settings.family_name, settings.family.horizon)
    title = f"{settings.family_name}, horizon {settings.family.horizon}, {settings.context.episodes} context episodes"
    print_table(results["policies"], published, title, results.get("bracket"))
    report.write(workdir, results, as_json(config), title, published)
    print(f"results: {workdir / 'results.json'}  report: {workdir / 'report.html'}")
    return results


def claim(workdir: pathlib.Path, config) -> None:
    """Makes the work directory this config's own, or refuses it if it is another's."""
    path = workdir / "config.json"
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        if path.exists():
            difference = first_difference(as_json(config), json.loads(path.read_text()))
            if difference:
                raise UserError(f"{workdir} belongs to another config: {difference}; choose another --workdir")
        else:
            write_json(path, as_json(config))
    except json.JSONDecodeError:
        raise UserError(f"{path} cannot be read: choose another --workdir") from None
    except OSError as error:
        raise UserError(f"cannot use --workdir {workdir}: {error.strerror}") from None


def share_pretraining(config, workdir: pathlib.Path, others: list[tuple[dict, pathlib.Path]]) -> None:
    """Takes the pretrained model from another run in which pretraining is the same, to the last random number.

    Args:
      others: (config, directory) of runs that may have pretrained already.
    """
    ours = workdir / "checkpoints" / "pretrain"
    for other, directory in others:
        theirs = directory / "checkpoints" / "pretrain"
        if not ours.exists() and theirs.exists() and _pretraining(other) == _pretraining(config):
            shutil.copytree(theirs, ours.with_suffix(".partial"), dirs_exist_ok=True)
            ours.with_suffix(".partial").replace(ours)


def _pretraining(config) -> tuple:
    """Everything that the pretrained model depends on."""
    s = Settings.from_config(config)
    data = s.pretrain, s.pretrain_mixture, s.pretrain_behavior, s.context.episodes, s.context.epsilon
    return s.seed, s.model, s.layout, s.mesh_model, *data


def load_results(workdir: pathlib.Path, config) -> dict | None:
    """The results of a run of this very config that has ended, or None."""
    path = workdir / "results.json"
    if not (path.exists() and (workdir / "values.npz").exists()):
        return None
    results = json.loads(path.read_text())
    return results if results["config_hash"] == config_hash(config) else None


def summaries(arrays: dict[str, np.ndarray]) -> dict:
    """The numbers of results.json from the arrays of values.npz.

    Args:
      arrays: `policy/NAME` (N,) values in each task, `members/NAME` (N, M) those under each member of a cloud,
        `optimal` (exact, or what the oracle reaches), `upper` (its upper bound) and `random` (N,), and `expert`
        if there is one.
    """
    optimal_N, upper_N, random_N = arrays["optimal"], arrays["upper"], arrays["random"]
    values = _named(arrays, "policy/")
    found = {"policies": {name: summarize(value_N, optimal_N, random_N) for name, value_N in values.items()}}
    if (upper_N != optimal_N).any():
        found["bracket"] = interval((upper_N - optimal_N) / np.abs(upper_N))
        mark_below_bracket(found["policies"], found["bracket"]["mean"])
    for name, value_NM in _named(arrays, "members/").items():
        found["policies"][name] |= summarize_members(value_NM, arrays["members/oracle"])
    if "expert" in arrays:
        closed = {name: (v - arrays["expert"]) / (optimal_N - arrays["expert"]) for name, v in values.items()}
        del closed["expert"]
        found["closed_from_expert"] = {name: interval(share) for name, share in closed.items()}
    readers = [name for name in ("posterior_mean", "certainty_equivalence") if name in values]
    if "fine_tuned" in values and readers:
        room = optimal_N - random_N > 1e-9
        normalized = {k: ((optimal_N - v) / (optimal_N - random_N))[room] for k, v in values.items()}
        found["ratios"] = {
            f"fine_tuned/{name}": ratio(normalized["fine_tuned"], normalized[name])
            for name in readers
            if normalized[name].mean() > 0
        }
    return found


def _named(arrays, prefix):
    return {name.removeprefix(prefix): value for name, value in arrays.items() if name.startswith(prefix)}


class Experiment:
    """The phases of one experiment, with what they share."""

    def __init__(self, settings: Settings, workdir: pathlib.Path, mesh, stop: StopRequest):
        self.settings, self.workdir, self.mesh, self.stop = settings, workdir, mesh, stop
        self.root = jax.random.key(settings.seed)
        self.data = open_data(settings, workdir) if settings.data else None
        self.seconds: dict[str, float] = {}

    def train_all(self) -> dict[str, Transformer]:
        """The trained models by the names of their policies."""
        s = self.settings
        rngs = nnx.Rngs(jax.random.fold_in(self.root, MODEL_KEY))
        start = Transformer(s.model, s.layout.size, rngs)
        models = {}
        model = start
        if s.pretrain.steps:
            model = models["in_context"] = self._pretrain(start)
        models["fine_tuned"] = self._fine_tune(model, "fine_tune", s.fine_tune, FINE_TUNE_KEY)
        if s.from_scratch:
            config = equal_tokens(s)
            models["from_scratch"] = self._fine_tune(start, "from_scratch", config, SCRATCH_KEY)
        return models

    def _pretrain(self, model):
        s = self.settings
        key = jax.random.fold_in(self.root, PRETRAIN_KEY)
        rows = s.pretrain.batch // len(s.pretrain_mixture)
        check_rows(self.mesh, "pretrain rows of each family", rows)
        streams = [
            TaskStream(family, jax.random.fold_in(key, i), self.mesh, precision=BEHAVING)
            for i, family in enumerate(s.pretrain_mixture)
        ]

        def batch(step):
            return [stream(step, rows) for stream in streams]

        def loss(model, drawn, key):
            members = []
            for i, (family, (tasks, task_B)) in enumerate(zip(s.pretrain_mixture, drawn)):
                member_key = jax.random.fold_in(key, i)
                behavior, episodes = s.pretrain_behavior, s.context.episodes + 1
                members.append(play(family, tasks, task_B, member_key, behavior, episodes, s.context.epsilon))
            tokens = mixed_tokens(s.layout, members)
            return next_token_loss(model, s.layout, tokens), tokens.valid.sum()

        return self._train("pretrain", model, loss, batch, s.pretrain, key)

    def _fine_tune(self, model, phase, config: TrainConfig, key_index):
        s = self.settings
        key = jax.random.fold_in(self.root, key_index)
        check_rows(self.mesh, "fine_tune.batch", config.batch)
        if self.data:
            recorded = self.data.batches(config.batch)
            batch = lambda step: place_rows(self.mesh, recorded[step], config.batch)  # noqa: E731
            return self._train(phase, model, self.data.loss, batch, config, key)
        if hides_state(s.family):
            pool = s.pool or HIDDEN_POOL
            stream = EpisodePool(s.family, key, self.mesh, pool, s.context, s.query_behavior)

            def episodes(drawn, key):
                return drawn
        else:
            stream = TaskStream(s.family, key, self.mesh, s.pool)

            def episodes(drawn, key):
                return record_with_context(s.family, *drawn, key, s.context, s.query_behavior)

        def batch(step):
            return stream(step, config.batch)

        def loss(model, drawn, key):
            trajectories = episodes(drawn, key)
            count = trajectories.valid.sum() * s.layout.positions
            return action_loss(model, s.layout, trajectories, s.labels, s.temperature), count

        return self._train(phase, model, loss, batch, config, key)

    def _train(self, phase, model, loss, batch, config, key):
        checkpoints = Checkpoints(self.workdir / "checkpoints" / phase)
        monitor = Monitor(self.workdir / "metrics.jsonl", phase, config.steps)
        try:
            with monitor:
                return train(
                    model,
                    loss,
                    batch,
                    config,
                    key,
                    mesh=self.mesh,
                    checkpoints=checkpoints,
                    log=monitor,
                    stop=self.stop,
                )
        except UserError as error:
            raise UserError(f"{phase}: {error}") from error
        finally:
            checkpoints.close()
            self.seconds[phase] = monitor.seconds

    def evaluate(self, models) -> tuple[dict[str, np.ndarray], dict]:
        """Values of every policy in every unseen task, as `summaries` reads them, and how the oracle was made."""
        s = self.settings
        began = time.perf_counter()
        key = jax.random.fold_in(self.root, EVALUATION_KEY)
        if self.data:
            test, deciders = self.data.test_tasks(key), self.data.deciders(models)
        else:
            test = make_test_tasks(s.family, s.context, s.evaluation, s.oracle, key)
            deciders = dict(reference_deciders(test)) | self._model_deciders(models)
        shown = {name: (test, decider) for name, decider in deciders.items()}
        if test.tasks.n > 1 and not self.data:
            others = jax.tree.map(lambda x: jnp.roll(x, s.evaluation.episodes, axis=0), test.context)
            shown["wrong_context"] = (dataclasses.replace(test, context=others), deciders["fine_tuned"])
        values, members = {}, {}
        for name, (tasks, decider) in shown.items():
            if self.stop():
                raise Stopped("stopped during the evaluation")
            values[name] = measure(tasks, decider, s.evaluation, self.mesh)
            if test.is_cloud:
                members[name] = measure_members(tasks, decider, s.evaluation, self.mesh, values[name])
        self.seconds["evaluate"] = time.perf_counter() - began
        method = {"method": test.certified.method}
        if test.certified.error_N.any():
            method["estimated_error"] = interval(test.certified.error_N)
        return arrays_of(test, values, members), method

    def _model_deciders(self, models) -> dict[str, Decider]:
        s = self.settings

        def transformer(model, reads_context=True):
            def decide(tasks, task_B, context, key):
                return TransformerPolicy(model, context if reads_context else None, s.layout, s.family.n_actions)

            return decide

        deciders = {name: transformer(model) for name, model in models.items()}
        return deciders | {"no_context": transformer(models["fine_tuned"], reads_context=False)}


def arrays_of(test: TestTasks, values: dict[str, np.ndarray], members: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What values.npz holds (see `summaries`): the policies from the best to the worst, and the bounds."""
    exact = test.certified.method == "exact"
    arrays = {
        "optimal": test.certified.lower_N if exact else values[test.counted_from],
        "upper": test.certified.upper_N,
        "random": test.random_N,
    }
    if test.expert_N is not None:
        arrays["expert"] = test.expert_N
    n = len(values["oracle"])
    fixed = {name: np.broadcast_to(arrays[name], n).copy() for name in ("random", "expert") if name in arrays}
    values = values | fixed
    order = sorted(values, key=lambda name: -values[name].mean())
    return (
        {f"policy/{name}": values[name] for name in order}
        | {f"members/{name}": value_NM for name, value_NM in members.items()}
        | arrays
    )


def equal_tokens(s: Settings) -> TrainConfig:
    """Fine-tuning alone, for as many steps as read the same number of positions as both phases."""
    longest = max((s.positions(f) for f in s.pretrain_mixture), default=0)
    pretraining = s.pretrain.steps * s.pretrain.batch * longest
    extra = round(pretraining / (s.fine_tune.batch * s.positions(s.family)))
    return dataclasses.replace(s.fine_tune, steps=s.fine_tune.steps + extra)


def write_json(path: pathlib.Path, content: dict) -> None:
    """Writes whole or not at all."""
    fresh = path.with_suffix(".tmp")
    fresh.write_text(json.dumps(content, indent=2) + "\n")
    fresh.replace(path)
