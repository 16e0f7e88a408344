"""`icdm describe`: statistics of a file of recorded steps, and its defects."""

import argparse
import json
import pathlib

import numpy as np

from icdm.logs.codings import Coding
from icdm.logs.files import coded_parts, fit_codings, open_source
from icdm.logs.table import NOTHING, find_defects, is_table, open_table

SHOWN = 12  # most actions that `show` lists


def main(arguments: argparse.Namespace) -> None:
    """Runs `icdm describe` with the parsed arguments."""
    description = describe(arguments.file, arguments.split)
    print(json.dumps(description)) if arguments.json else show(description)


def describe(path: str | pathlib.Path, split: str = "") -> dict:
    """Statistics of a file as one JSON object; about one row group is in memory at a time.

    Raises:
      UserError: the file cannot be read. Defects of rows are counted in `defects` and raise nothing.
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
    for rows, row_defects in find_defects(parts):
        for column, row, message in row_defects:
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
    """The five most visited observations with an untried action."""
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


def show(description: dict) -> None:
    """Prints a description as text."""

    def spread(numbers: dict[str, float]) -> str:
        return "  ".join(f"{name} {value:.4g}" for name, value in numbers.items()) or "none"

    print(f"{description['file']}: {description['rows']} rows, {description['steps']} steps")
    ends = f"{description['terminal_episodes']} end in a terminal step"
    print(f"tasks {description['tasks']}, episodes {description['episodes']} ({ends})")
    print(f"episode length: {spread(description['length'])}")
    print(f"reward: {spread(description['reward'])}\nreturn: {spread(description['return'])}")
    counts = sorted(description["actions"].items(), key=lambda item: -item[1])
    rest = sum(count for _, count in counts[SHOWN:])
    shares = [f"{name}: {count / max(description['steps'], 1):.1%}" for name, count in counts[:SHOWN]]
    print("actions: " + ", ".join(shares) + (f", others: {rest / description['steps']:.1%}" if rest else ""))
    print(
        f"coverage: {description['observations_seen']} of {description['observations']} observations were acted in; "
        f"{description['pairs_seen']} pairs seen, {description['pair_coverage']:.1%} of the actions in those states"
    )
    for state in description["least_covered"]:
        print(f"  observation {state['observation']}: {state['visits']} visits, {state['untried']} actions never tried")
    queries = f"{description['queries']} of them queries"
    print(f"labels: {description['rows_with_oracle_action']} rows with an oracle action, {queries}")
    print(f"behaviour probabilities: {description['steps_with_behavior_probability']} of {description['steps']} steps")
    if not description["defects"]:
        print("defects: none")
    for column, entry in description["defects"].items():
        print(f"defect: column {column}: {entry['rows']} rows, the first is row {entry['first_row']}: {entry['first']}")
