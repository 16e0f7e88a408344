"""`icdm describe`: what a file of recorded steps holds, and every defect in it."""

import argparse
import json
import pathlib

import numpy as np

from icdm.logs.codings import Coding
from icdm.logs.files import coded_parts, fit_codings, open_source
from icdm.logs.table import NOTHING, find_defects, is_table, open_table

SHOWN = 12  # actions in the table


def main(arguments: argparse.Namespace) -> None:
    """Describes the file that the arguments of `icdm describe` name."""
    found = describe(arguments.file, arguments.split)
    print(json.dumps(found)) if arguments.json else show(found)


def describe(path: str | pathlib.Path, split: str = "") -> dict:
    """What the file holds, as one JSON object; reads it row group by row group.

    Raises:
      UserError: the file cannot be read at all. Defects of rows are counted in `defects`, not raised.
    """
    if is_table(path):
        table = open_table(path)
        codings, parts = table.codings, table.coded()
    else:
        source = open_source(path, split)
        codings = fit_codings(source, 16, "quantile")
        parts = coded_parts(source, codings)
    n_observations, n_actions = codings["observation"].n, codings["action"].n
    pairs = np.zeros((n_observations, n_actions), np.int64)
    lengths, rewards, returns, tasks, defects = [], [], [], set(), {}
    rows_before = labelled = queries = 0
    probable = terminal = 0
    for rows, found in find_defects(parts):
        for column, row, message in found:
            entry = defects.setdefault(column, {"rows": 0, "first_row": rows_before + row + 1, "first": message})
            entry["rows"] += 1
        starts, acted = rows.starts, rows.acted
        np.add.at(pairs, (rows.observation[acted], rows.action[acted]), 1)
        lengths.append(np.add.reduceat(acted.astype(np.int64), starts))
        returns.append(np.add.reduceat(np.where(acted, rows.reward, 0), starts))
        rewards.append(rows.reward[acted])
        tasks.update(np.unique(rows.task_id).tolist())
        labelled += int((rows.oracle_action != NOTHING).sum())
        queries += int(((rows.oracle_action != NOTHING) & ~acted).sum())
        probable += int((acted & ~np.isnan(rows.behavior_probability)).sum())
        terminal += int(rows.terminal.sum())
        rows_before += rows.n
    lengths, rewards, returns = np.concatenate(lengths), np.concatenate(rewards), np.concatenate(returns)
    steps = int(pairs.sum())
    seen = pairs.sum(1) > 0
    names = [str(name) for name in codings["action"].decode(np.arange(n_actions))]
    return {
        "file": str(path),
        "rows": rows_before,
        "steps": steps,
        "tasks": len(tasks),
        "episodes": len(lengths),
        "length": _spread(lengths[lengths > 0]),
        "reward": _spread(rewards),
        "return": _spread(returns[lengths > 0]),
        "terminal_episodes": terminal,
        "actions": dict(zip(names, pairs.sum(0).tolist())),
        "observations": int(n_observations),
        "observations_seen": int(seen.sum()),
        "pairs_seen": int((pairs > 0).sum()),
        "pair_coverage": float((pairs[seen] > 0).mean()) if seen.any() else 0.0,
        "least_covered": _least_covered(codings, pairs),
        "rows_with_oracle_action": labelled,
        "queries": queries,
        "steps_with_behavior_probability": probable,
        "codings": {name: coding.as_json()["kind"] for name, coding in codings.items()},
        "defects": defects,
    }


def _spread(values: np.ndarray) -> dict:
    finite = values[np.isfinite(values)]
    if not finite.size:
        return {}
    names = ("min", "median", "max")
    return {
        "mean": float(finite.mean()),
        **{k: float(x) for k, x in zip(names, np.percentile(finite, [0, 50, 100]))},
    }


def _least_covered(codings: dict[str, Coding], pairs: np.ndarray) -> list[dict]:
    """The five states most often visited in which some action was never tried."""
    visits = pairs.sum(1)
    order = [s for s in np.argsort(-visits) if visits[s] and (pairs[s] == 0).any()][:5]
    state = codings["observation"].decode
    return [
        {
            "observation": str(state(np.array([s]))[0]),
            "visits": int(visits[s]),
            "untried": int((pairs[s] == 0).sum()),
        }
        for s in order
    ]


def show(found: dict) -> None:
    """Prints a description for people."""

    def spread(numbers: dict[str, float]) -> str:
        return "  ".join(f"{name} {value:.4g}" for name, value in numbers.items()) or "none"

    print(f"{found['file']}: {found['rows']} rows, {found['steps']} steps")
    print(f"tasks {found['tasks']}, episodes {found['episodes']} ({found['terminal_episodes']} end in a terminal step)")
    print(f"episode length: {spread(found['length'])}")
    print(f"reward: {spread(found['reward'])}\nreturn: {spread(found['return'])}")
    shown = sorted(found["actions"].items(), key=lambda item: -item[1])
    rest = sum(count for _, count in shown[SHOWN:])
    shares = [f"{name}: {count / max(found['steps'], 1):.1%}" for name, count in shown[:SHOWN]]
    print("actions: " + ", ".join(shares) + (f", others: {rest / found['steps']:.1%}" if rest else ""))
    print(
        f"coverage: {found['observations_seen']} of {found['observations']} observations were acted in; "
        f"{found['pairs_seen']} pairs seen, {found['pair_coverage']:.1%} of the actions in those states"
    )
    for state in found["least_covered"]:
        print(f"  observation {state['observation']}: {state['visits']} visits, {state['untried']} actions never tried")
    print(f"labels: {found['rows_with_oracle_action']} rows with an oracle action, {found['queries']} of them queries")
    print(f"behaviour probabilities: {found['steps_with_behavior_probability']} of {found['steps']} steps")
    if not found["defects"]:
        print("defects: none")
    for column, entry in found["defects"].items():
        print(f"defect: column {column}: {entry['rows']} rows, the first is row {entry['first_row']}: {entry['first']}")
