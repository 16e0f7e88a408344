"""What to do next, from a trained run and the trajectories of the task at hand.

    icdm decide --run DIR --context FILE [--history FILE] [--observation VALUE] [--task ID] [--json]

CONTEXT holds recorded episodes of the task (a table, .csv or .parquet). HISTORY holds the episode that is going
on, in the same form: its last row has no action, and is what is observed now. Without a history an episode
begins, on the given observation. Prints the best action, the probability of each action, and their values
where the model carries them.
"""

import argparse
import json
import pathlib

from icdm.errors import UserError, one_line_errors


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="icdm decide", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", required=True, metavar="DIR", help="work directory of a trained run")
    parser.add_argument("--context", required=True, metavar="FILE", help="recorded episodes of the task")
    parser.add_argument("--history", metavar="FILE", help="the episode so far, up to what is observed now")
    parser.add_argument("--observation", help="what is observed now, at the start of an episode")
    parser.add_argument("--task", help="which task_id of CONTEXT; needed if it holds several")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args(argv)
    with one_line_errors("icdm decide"):
        found = decide(arguments.run, arguments.context, arguments.history, arguments.observation, arguments.task)
        print(json.dumps(found) if arguments.json else _told(found))


def decide(run, context, history=None, observation=None, task=None) -> dict:
    """{"action", "probabilities", "values", "context_episodes", "step"}, actions as they are named in the data.

    Raises:
      UserError: a run without a model, a file with a defect (file, row, column), no present observation.
    """
    from icdm.runs.decider import Decider

    decider = Decider.from_run(run)
    codings = run_codings(run, decider)
    shown = _log(context, codings, task)
    episodes = shown.contexts[0]
    decider.reset(_trajectories(shown, episodes))
    t = 0
    if history is not None:
        live = _log(history, codings, None)
        if len(live.contexts[0]) + len(live.queries[0]) != 1:
            raise UserError(f"{history} holds {len(live.contexts[0])} episodes: give the one that is going on")
        first, stop = live.first[0], live.first[1]
        if live.action[stop - 1] >= 0:
            raise UserError(f"{history}: its last row has an action: end it with what is observed now, without one")
        for t, row in enumerate(range(first, stop - 1), 1):
            decider.act(live.observation[row])
            decider.observe(live.action[row], live.reward[row])
        now = live.observation[stop - 1]
    else:
        now = _present(observation, codings["observation"])
    decision = decider.act(now)
    names = [_plain(name) for name in codings["action"].decode(range(decider.family.n_actions))]
    values = None if decision.value is None else dict(zip(names, decision.value[0].tolist()))
    return {
        "action": names[int(decision.action[0])],
        "probabilities": dict(zip(names, decision.probability[0].tolist())),
        "values": values,
        "context_episodes": len(episodes),
        "step": t,
    }


def run_codings(run, decider) -> dict:
    """What codes stand for in a run: as in the table that it learned from, else the family's own integers."""
    from icdm.logs.table import is_table, open_table, plain_codings

    learned = [pathlib.Path(run) / "data.parquet", pathlib.Path(decider.config["data"])]
    tables = [path for path in learned if path.suffix == ".parquet" and is_table(path)]
    plain = plain_codings(decider.policy.layout.n_observations, decider.family.n_actions)
    return (
        plain | {name: open_table(tables[0]).codings[name] for name in ("observation", "action")} if tables else plain
    )


def _log(path, codings, task):
    """The one task of a file as a log, its values coded as in the run."""
    import numpy as np

    from icdm.logs.files import coded_parts, fit_codings, open_source
    from icdm.logs.loader import log_of
    from icdm.logs.table import Report, checked, is_table, join, open_table

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
            raise UserError(f"{path}: {name} {code.max()}: the run knows those from 0 to {codings[name].n - 1}")
    return log_of([rows], codings["observation"].n)


def _trajectories(log, episodes):
    import jax
    import jax.numpy as jnp

    from icdm.logs.loader import assemble

    if not len(episodes):
        return None
    return jax.tree.map(jnp.asarray, assemble(log, episodes[None]).trajectories)


def _present(observation, coding) -> int:
    import numpy as np

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


def _plain(name):
    return name if isinstance(name, str) else str(name)


def _told(found: dict) -> str:
    lines = [f"action {found['action']}   (step {found['step']}, {found['context_episodes']} context episodes)"]
    for name, probability in found["probabilities"].items():
        value = "" if found["values"] is None else f"   value {found['values'][name]:+.4f}"
        lines.append(f"  {name}: probability {probability:.4f}{value}")
    if found["values"] is not None:
        lines.append("values: Q of each action less their mean")
    return "\n".join(lines)
