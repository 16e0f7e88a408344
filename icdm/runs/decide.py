"""`icdm decide`: what to do next, from a trained run and the trajectories of the task at hand."""

import argparse
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from icdm.errors import UserError
from icdm.logs.codings import Coding
from icdm.logs.files import coded_parts, fit_codings, open_source
from icdm.logs.log import Log, log_of
from icdm.logs.sequences import as_one_episode, assemble
from icdm.logs.table import Report, checked, is_table, join, open_table, plain_codings
from icdm.runs.decider import Decider
from icdm.runs.run import Run
from icdm.trajectories.layouts import Layout
from icdm.trajectories.trajectory import Trajectories


def main(arguments: argparse.Namespace) -> None:
    """Decides as the arguments of `icdm decide` say, and prints the decision."""
    answer = decide(arguments.run, arguments.context, arguments.history, arguments.observation, arguments.task)
    print(json.dumps(answer) if arguments.json else _text(answer))


def decide(
    run: str | pathlib.Path,
    context: str | pathlib.Path,
    history: str | pathlib.Path | None = None,
    observation: str | None = None,
    task: str | None = None,
) -> dict:
    """{"action", "probabilities", "values", "context_episodes", "step"}, actions as they are named in the data.

    Raises:
      UserError: a run without a model, a file with a defect (file, row, column), no present observation.
    """
    opened = Run.open(run)
    decider = Decider(opened)
    codings = run_codings(opened)
    log = _log(context, codings, task)
    episodes = log.contexts[0]
    decider.reset(_trajectories(log, episodes, opened.layout))
    if history is not None:
        live = _log(history, codings, None)
        if len(live.contexts[0]) + len(live.queries[0]) != 1:
            raise UserError(f"{history} holds {len(live.contexts[0])} episodes: give the one that is going on")
        first, stop = live.first[0], live.first[1]
        if live.action[stop - 1] >= 0:
            raise UserError(f"{history}: its last row has an action: end it with what is observed now, without one")
        for row in range(first, stop - 1):
            decider.act(live.observation[row])
            decider.observe(live.action[row], live.reward[row])
        now = live.observation[stop - 1]
    else:
        now = _present(observation, codings["observation"])
    decision = decider.act(now)
    names = [str(name) for name in codings["action"].decode(range(opened.family.n_actions))]
    values = None if decision.value is None else dict(zip(names, decision.value[0].tolist()))
    return {
        "action": names[int(decision.action[0])],
        "probabilities": dict(zip(names, decision.probability[0].tolist())),
        "values": values,
        "context_episodes": len(episodes),
        "step": decider.t,
    }


def run_codings(run: Run) -> dict[str, Coding]:
    """What codes stand for in a run: as in the table that it learned from, else the family's own integers."""
    learned = [run.directory / "data.parquet", pathlib.Path(run.settings.data)]
    tables = [path for path in learned if path.suffix == ".parquet" and is_table(path)]
    plain = plain_codings(run.layout.n_observations, run.family.n_actions)
    if not tables:
        return plain
    return plain | {name: open_table(tables[0]).codings[name] for name in ("observation", "action")}


def _log(path: str | pathlib.Path, codings: dict[str, Coding], task: str | None) -> Log:
    """The one task of a file as a log, its values coded as in the run."""
    if is_table(path):
        table = open_table(path)
        for name in ("observation", "action"):
            if table.codings[name] != codings[name] and table.codings[name].as_json()["kind"] != "integers":
                raise UserError(f"{path}: column {name} is coded in another way than the run's data: give it as .csv")
        own, rows = table.codings, join(list(table.chunks()))
    else:
        source = open_source(path)
        own = fit_codings(source, 2, "uniform") | {name: codings[name] for name in ("observation", "action")}
        rows = join(list(checked(path, coded_parts(source, own), repair=None, report=Report())))
    ids = np.unique(rows.task_id)
    if task is not None:
        names = [str(name) for name in own["task_id"].decode(ids)]
        if task not in names:
            raise UserError(f"{path} has no task {task}: it has {', '.join(names[:8])}")
        rows = rows[rows.task_id == ids[names.index(task)]]
    elif len(ids) > 1:
        raise UserError(f"{path} holds {len(ids)} tasks: name one with --task")
    for name, code in (("observation", rows.observation), ("action", rows.action)):
        if code.max() >= codings[name].n:
            raise UserError(f"{path}: {name} {code.max()}: the run has those from 0 to {codings[name].n - 1}")
    return log_of([rows], codings["observation"].n)


def _trajectories(log: Log, episodes: np.ndarray, layout: Layout) -> Trajectories | None:
    """The episodes as the context of one row."""
    if not len(episodes):
        return None
    found = assemble(log, episodes[None])
    found = as_one_episode(found, asks=False) if layout.independent_steps else found
    return jax.tree.map(jnp.asarray, found.trajectories)


def _present(observation: str | None, coding: Coding) -> int:
    if observation is None:
        if coding.n <= 2 and coding.as_json()["kind"] == "integers":
            return 0
        raise UserError("what is observed now? give --history FILE or --observation VALUE")
    kind = coding.as_json()["kind"]
    try:
        value = observation if kind == "words" else float(observation) if kind == "bins" else int(observation)
        code = int(coding.encode(np.array([value]))[0])
    except ValueError:
        code = -1
    if code < 0:
        raise UserError(f"--observation {observation}: not among the {coding.n} values known")
    return code


def _text(answer: dict) -> str:
    lines = [f"action {answer['action']}   (step {answer['step']}, {answer['context_episodes']} context episodes)"]
    for name, probability in answer["probabilities"].items():
        value = "" if answer["values"] is None else f"   value {answer['values'][name]:+.4f}"
        lines.append(f"  {name}: probability {probability:.4f}{value}")
    if answer["values"] is not None:
        lines.append("values: Q of each action less their mean")
    return "\n".join(lines)
