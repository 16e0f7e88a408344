"""`icdm describe`: statistics of a file of recorded steps, and its defects."""

import argparse
import json
import pathlib
from typing import Any

import numpy as np

from icdm.logs.codings import Coding, Features, remarks
from icdm.logs.files import Reading, coded_parts, fit_codings, open_source
from icdm.logs.table import LARGEST_REWARD, NOTHING, find_defects, is_table, open_table

SHOWN = 12  # most actions that `show` lists


def main(arguments: argparse.Namespace) -> None:
    """Runs `icdm describe` with the parsed arguments."""
    options = {name: value for name, value in vars(arguments).items() if name not in ("command", "file", "json")}
    description = describe(arguments.file, **options)
    print(json.dumps(description, allow_nan=False)) if arguments.json else show(description)


def describe(path: str | pathlib.Path, split: str = "", **reading: Any) -> dict:
    """Statistics of a file as one JSON object; about one row group is in memory at a time.

    Args:
      split, reading: the fields of `Reading`, for a file that is not a table.

    Raises:
      UserError: the file cannot be read. Defects of rows are counted in `defects` and raise nothing.
    """
    if is_table(path):
        table = open_table(path)
        codings, parts, notes = table.codings, table.coded(), []
    else:
        source = open_source(path, Reading(split=split, **reading))
        codings = fit_codings(source, 16, "quantile")
        parts, notes = coded_parts(source, codings), source.notes
    n_actions = codings["action"].n
    pair_parts, lengths, rewards, returns, tasks, defects = [], [], [], [], set(), {}
    rows_before = labelled = queries = 0
    probable = terminal = episodes = 0
    features = []
    for rows, row_defects in find_defects(parts):
        for column, row, message in row_defects:
            entry = defects.setdefault(column, {"rows": 0, "first_row": int(rows_before + row + 1), "first": message})
            entry["rows"] += 1
        starts, acted = rows.starts, rows.acted
        reward = np.where(np.abs(rows.reward) <= LARGEST_REWARD, rows.reward, np.nan)  # the others are defects
        pair_parts.append(_counted(rows.observation[acted] * n_actions + rows.action[acted]))
        if len(pair_parts) > 64:
            pair_parts = [_added(pair_parts)]
        lengths.append(np.add.reduceat(acted.astype(np.int64), starts))
        returns.append(np.add.reduceat(np.where(acted, reward, 0), starts))
        rewards.append(reward[acted])
        again = {row for column, row, _ in row_defects if column == "episode_id"}
        episodes += sum(int(start) not in again for start in starts)
        tasks.update(np.unique(rows.task_id).tolist())
        labelled += int((rows.oracle_action != NOTHING).sum())
        queries += int(((rows.oracle_action != NOTHING) & ~acted).sum())
        probable += int((acted & ~np.isnan(rows.behavior_probability)).sum())
        terminal += int(rows.terminal.sum())
        features.append(rows.features)
        rows_before += rows.n
    lengths, rewards, returns = np.concatenate(lengths), np.concatenate(rewards), np.concatenate(returns)
    pair, count = _added(pair_parts)
    state, action = np.divmod(pair, n_actions)
    steps, tried = int(count.sum()), _added([(state, np.ones_like(state))])
    taken, times = _added([(action, count)])
    names = [str(name) for name in codings["action"].decode(taken)]
    observation = codings["observation"]
    return {
        "file": str(path),
        "rows": rows_before,
        "steps": steps,
        "tasks": len(tasks),
        "episodes": episodes,
        "length": _spread(lengths[lengths > 0]),
        "reward": _spread(rewards),
        "return": _spread(returns[lengths > 0]),
        "terminal_episodes": terminal,
        "actions": dict(zip(names, times.tolist())),
        "n_actions": n_actions,
        "features": _features(observation, np.concatenate(features)) if observation.columns else {},
        "observations": observation.n,
        "observations_seen": len(tried[0]),
        "pairs_seen": len(pair),
        "pair_coverage": len(pair) / (len(tried[0]) * n_actions) if len(pair) else 0.0,
        "least_covered": _least_covered(codings, _added([(state, count)]), tried),
        "rows_with_oracle_action": labelled,
        "queries": queries,
        "steps_with_behavior_probability": probable,
        "codings": {name: coding.as_json()["kind"] for name, coding in codings.items()},
        "notes": notes + remarks(codings),
        "defects": defects,
    }


def _features(coding: Features, value_IF: np.ndarray) -> dict[str, dict]:
    """Of each feature the share of rows in which it is missing, and its range or how often each word occurs."""
    found = {}
    for name, words, value_I in zip(coding.names, coding.words, value_IF.T):
        there = value_I[~np.isnan(value_I)]
        found[name] = {"missing": float(np.isnan(value_I).mean())}
        if words is None:
            found[name] |= _spread(there)
        else:
            found[name]["words"] = dict(zip(words, np.bincount(there.astype(int), minlength=len(words)).tolist()))
    return found


def _counted(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The distinct values, in their order, and how often each occurs."""
    return np.unique(values, return_counts=True)


def _added(parts: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """The same of all parts together."""
    values, counts = (np.concatenate(x) for x in zip(*parts))
    distinct, place = np.unique(values, return_inverse=True)
    total = np.zeros(len(distinct), np.int64)
    np.add.at(total, place, counts)
    return distinct, total


def _spread(values: np.ndarray) -> dict:
    finite = values[np.isfinite(values)]
    if not finite.size:
        return {}
    names = ("min", "median", "max")
    return {
        "mean": float(finite.mean()),
        **{k: float(x) for k, x in zip(names, np.percentile(finite, [0, 50, 100]))},
    }


def _least_covered(
    codings: dict[str, Coding], visited: tuple[np.ndarray, np.ndarray], tried: tuple[np.ndarray, np.ndarray]
) -> list[dict]:
    """The five most visited observations with an untried action; `tried` counts the actions that were taken in each."""
    (state, visits), untried = visited, codings["action"].n - tried[1]
    order = [i for i in np.argsort(-visits, kind="stable") if untried[i] > 0][:5]
    names = codings["observation"].decode(state[order])
    return [
        {"observation": str(name), "visits": int(visits[i]), "untried": int(untried[i])}
        for name, i in zip(names, order)
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
    if description["features"]:
        print("\n".join(["features:", *(f"  {line}" for line in _feature_lines(description["features"]))]))
    else:
        _show_coverage(description)
    queries = f"{description['queries']} of them queries"
    print(f"labels: {description['rows_with_oracle_action']} rows with an oracle action, {queries}")
    print(f"behaviour probabilities: {description['steps_with_behavior_probability']} of {description['steps']} steps")
    for note in description["notes"]:
        print(f"note: {note}")
    if not description["defects"]:
        print("defects: none")
    for column, entry in description["defects"].items():
        print(f"defect: column {column}: {entry['rows']} rows, the first is row {entry['first_row']}: {entry['first']}")


def _feature_lines(features: dict[str, dict]) -> list[str]:
    lines = []
    for name, found in features.items():
        if "words" in found:
            most = sorted(found["words"].items(), key=lambda item: -item[1])[:SHOWN]
            shown = ", ".join(f"{word} {count}" for word, count in most)
        else:
            shown = f"{found['min']:.4g} to {found['max']:.4g}, median {found['median']:.4g}" if "min" in found else "-"
        lines.append(f"{name}: {shown}; missing in {found['missing']:.1%}")
    return lines


def _show_coverage(description: dict) -> None:
    print(
        f"coverage: {description['observations_seen']} of {description['observations']} observations were acted in; "
        f"{description['pairs_seen']} pairs seen, {description['pair_coverage']:.1%} of the actions in those states"
    )
    for state in description["least_covered"]:
        print(f"  observation {state['observation']}: {state['visits']} visits, {state['untried']} actions never tried")
