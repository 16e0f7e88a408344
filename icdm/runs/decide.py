"""`icdm decide`: what to do next, from a trained run and the trajectories of the task at hand."""

import argparse
import json
import pathlib
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow as pa

from icdm.compiled import keep_programs
from icdm.errors import UserError
from icdm.logs.codings import UNKNOWN, Coding
from icdm.logs.columns import raw_values
from icdm.logs.features import Encoder, values_of
from icdm.logs.files import AS_IT_IS, Reading
from icdm.logs.log import Log
from icdm.logs.sequences import as_one_episode, assemble
from icdm.runs.decider import Decider
from icdm.runs.run import Run
from icdm.runs.task_rows import TaskRows, as_log, end_code, read_rows, run_codings
from icdm.trajectories.layouts import Layout
from icdm.trajectories.prompt import encode_going_on
from icdm.trajectories.trajectory import Trajectories


def main(arguments: argparse.Namespace) -> None:
    """Decides as the arguments of `icdm decide` say, and prints the decision."""
    keep_programs()  # the next decision on a record of the same lengths starts sooner
    told = arguments.context, arguments.history, arguments.observation, arguments.task
    if arguments.model is not None:
        if arguments.show_prompt:
            raise UserError(f"model {arguments.model} reads no text: --show-prompt is for runs of a language model")
        from icdm.runs.decide_by_model import decide_by_model

        # to compile well would take longer than the one decision
        jax.config.update("jax_disable_most_optimizations", True)
        answer = decide_by_model(arguments.model, *told, horizon=arguments.horizon)
    else:
        if arguments.horizon is not None:
            raise UserError("--horizon goes with --model: a run has its own")
        answer = decide(arguments.run, *told, show_prompt=arguments.show_prompt)
    print(json.dumps(answer, allow_nan=False) if arguments.json else _text(answer))


def decide(
    run: str | pathlib.Path,
    context: str | pathlib.Path | None = None,
    history: str | pathlib.Path | None = None,
    observation: str | None = None,
    task: str | None = None,
    show_prompt: bool = False,
) -> dict:
    """{"action", "probabilities", "values", "context_episodes", "step"}, actions as they are named in the data; and
    "notes" if values of features lie outside what training saw.

    Args:
      context: None decides without a context.
      observation: what is observed now; of several features "hr=90,map=65,lactate=", where none was measured of the
        last.
      show_prompt: adds "prompt", the text that a language model has read.

    Raises:
      UserError: a run without a model, no text to be shown, a file with a defect (file, row, column), a value that the
        run does not have, an episode that is longer than the run's or over, no present observation.
    """
    opened = Run.open(run)
    if show_prompt and not opened.settings.weights:
        raise UserError(f"{run} reads no text: --show-prompt is for runs of a language model (config.weights)")
    decider, codings = Decider(opened), run_codings(opened)
    how = Reading(columns=opened.settings.columns)
    recorded = None if context is None else read_rows(context, codings, task, how)
    if recorded and not opened.layout.independent_steps:
        _check_lengths(recorded, opened.family.horizon)
    episode = begun(recorded, codings, history, observation, how)
    end = end_code(opened, codings)
    read = recorded and context_of(as_log(recorded.rows, codings["observation"], end), opened.layout)
    answer = decided(decider, codings, read, episode, history)
    notes = (recorded.outside if recorded else []) + episode.notes
    answer |= {"notes": notes} if notes else {}
    return answer | {"prompt": _prompt(opened, read, episode)} if show_prompt else answer


class Episode(NamedTuple):
    """The episode that is going on: (observation, action, reward) of the steps before, and what is observed now.

    An observation is a code or a list of numbers. The notes say which features lie outside what training saw.
    """

    before: list[tuple[int | list[float], int, float]]
    now: int | list[float]
    notes: list[str] = []

    @property
    def recorded(self) -> Trajectories:
        """The same as the one episode of one row."""
        observation, action, reward = zip(*self.before) if self.before else ((), (), ())
        return Trajectories(
            np.array([[[*observation, self.now]]], np.int32 if isinstance(self.now, int) else np.float32),
            np.array([[action]], np.int32),
            np.array([[reward]], np.float32),
            np.ones((1, 1, len(action)), bool),
        )


def begun(
    recorded: TaskRows | None,
    codings: dict[str, Coding],
    history: str | pathlib.Path | None,
    observation: str | None,
    how: Reading = AS_IT_IS,
) -> Episode:
    coding = codings["observation"]
    if history is not None:
        live = _live(history, codings, recorded and recorded.start, how)
        rows = live.rows
        seen = coding.seen(rows.features) if isinstance(coding, Encoder) else rows.observation
        *before, (now, _, _) = zip(seen.tolist(), rows.action.tolist(), rows.reward.tolist())
        return Episode(before, now, live.outside)
    if isinstance(coding, Encoder):
        value_1F = values_of(coding, _named(observation, coding))
        return Episode([], coding.seen(value_1F)[0].tolist(), coding.remarks(value_1F))
    return Episode([], _present(observation, coding))


def decided(
    decider: Decider,
    codings: dict[str, Coding],
    context: Trajectories | None,
    episode: Episode,
    history: str | pathlib.Path | None,
) -> dict:
    """What `decide` answers."""
    family = decider.run.family
    if len(episode.before) >= family.horizon:
        raise UserError(
            f"{history} holds {len(episode.before)} steps: the run's episodes are over after {family.horizon}"
        )
    decision = decider.decide(context, episode.recorded)
    names = _action_names(codings["action"], family.n_actions)
    values = None if decision.value is None else dict(zip(names, decision.value[0].tolist()))
    return {
        "action": names[int(decision.action[0])],
        "probabilities": dict(zip(names, decision.probability[0].tolist())),
        "values": values,
        "context_episodes": 0 if context is None else int(context.valid.any(-1).sum()),
        "step": len(episode.before),
    }


def _prompt(run: Run, context: Trajectories | None, episode: Episode) -> str:
    """The text of the context and of the episode that is going on, up to the token that names the action."""
    from icdm.published.model import open_published  # needs the packages of the extra `language`

    tokens, _ = encode_going_on(run.layout, context, episode.recorded)
    ids = tokens.id[0, np.asarray(tokens.valid[0]), 0]
    return open_published(run.settings.weights).tokenizer.decode(ids.tolist(), skip_special_tokens=False)


def _action_names(coding: Coding, n: int) -> list[str]:
    """The names of n actions; those that the data do not have are named by their codes."""
    return [str(coding.decode(np.array([code]))[0]) if code < coding.n else str(code) for code in range(n)]


def _check_lengths(recorded: TaskRows, horizon: int) -> None:
    late = recorded.rows.acted & (recorded.rows.t >= horizon)
    if late.any():
        episode = recorded.rows.episode_id[late][0]
        raise UserError(
            f"{recorded.path}: an episode (code {episode}) has {recorded.rows.t[late][0] + 1} steps or more: the run's "
            f"episodes have {horizon}"
        )


def _live(path: str | pathlib.Path, codings: dict[str, Coding], start: int | None, how: Reading = AS_IT_IS) -> TaskRows:
    """The rows of the episode that is going on; the last is only observed.

    Args:
      start: the t from which the context counts steps, if there is a context.

    Raises:
      UserError: several episodes, one that is over, one whose beginning is missing, or one that ends in an action.
    """
    live = read_rows(path, codings, None, how)
    rows = live.rows
    if len(rows.starts) != 1:
        raise UserError(f"{path} holds {len(rows.starts)} episodes: give the one that is going on")
    if start is not None and live.start != start:
        raise UserError(f"{path}: t begins at {live.start}, in the context at {start}: give the episode from its start")
    if rows.terminal.any():
        row = int(rows.terminal.argmax())
        raise UserError(f"{path}: row {row + 1}, column terminal: the episode is over, there is nothing to decide")
    if rows.acted[-1]:
        raise UserError(f"{path}: its last row has an action: end it with what is observed now, without one")
    return live


def context_of(log: Log, layout: Layout) -> Trajectories | None:
    """The episodes of the log's only task as the context of one row."""
    episodes = log.contexts[0]
    if not len(episodes):
        return None
    found = assemble(log, episodes[None])
    found = as_one_episode(found, asks=False) if layout.independent_steps else found
    return jax.tree.map(jnp.asarray, found.trajectories)


def _named(text: str | None, coding: Encoder) -> dict[str, str]:
    """The values of "hr=90,map=65" by their names."""
    if text is None:
        names = ",".join(f"{name}=VALUE" for name in coding.names)
        raise UserError(f"what is observed now? give --history FILE or --observation {names}")
    found = {}
    for part in text.split(","):
        name, mark, value = part.partition("=")
        if not mark:
            raise UserError(f"--observation {text}: {part!r} is not NAME=VALUE")
        if name.strip() in found:
            raise UserError(f"--observation {text}: {name.strip()} is there twice")
        found[name.strip()] = value
    return found


def _present(observation: str | None, coding: Coding) -> int:
    if observation is None:
        if coding.n == 1:
            return 0
        raise UserError("what is observed now? give --history FILE or --observation VALUE")
    value, there, faults = raw_values(pa.array([observation]), coding.kind)
    code = int(coding.encode(value)[0]) if there[0] and faults[0] is None else UNKNOWN
    if code == UNKNOWN:
        raise UserError(f"--observation {observation}: not among the {coding.n} values known")
    return code


def _text(answer: dict) -> str:
    lines = [answer["prompt"], ""] if "prompt" in answer else []
    lines += [f"action {answer['action']}   (step {answer['step']}, {answer['context_episodes']} context episodes)"]
    for name, probability in answer["probabilities"].items():
        value = "" if answer["values"] is None else f"   value {answer['values'][name]:+.4f}"
        lines.append(f"  {name}: probability {probability:.4f}{value}")
    if answer["values"] is not None:
        lines.append("values: Q of each action less their mean")
    if "certainty_equivalence" in answer:
        other = answer["certainty_equivalence"]["action"]
        agrees = "the same action" if other == answer["action"] else f"action {other}"
        lines.append(f"certainty equivalence, which trusts the observed frequencies: {agrees}")
    lines += [f"note: {note}" for note in answer.get("notes", ())]
    return "\n".join(lines)
