"""The data of the page: some contexts of a run, with whatever a person can pick in them computed beforehand.

Values are whole ten-thousandths of the reward range, attention and beliefs whole ten-thousandths: the page stays small.
Axis letters: N tasks, W decisions, E episodes, T steps, A actions, L positions, X layers, H heads, I = E T steps
one after another.
"""

import json
import pathlib

import jax
import markupsafe
import numpy as np

from icdm import pages, provenance
from icdm.problems.family import HasGrid
from icdm.runs.run import Run
from icdm.trajectories.prompt import encode
from theory.circuits import trained
from theory.circuits.attention_figures import pictures
from theory.circuits.beliefs import beliefs_in_the_task, posterior
from theory.circuits.decisions import each_replaced
from theory.circuits.headlines import (
    Head,
    head_is_needed,
    head_reads_q,
    influence_is_bayes,
    logits_are_q,
    measured,
    regret,
    regret_rises,
)
from theory.circuits.heads import mean_and_half
from theory.circuits.trained import centred
from theory.circuits.view import View

CONTEXTS = {"best": 5, "worst": 5, "random": 10}
DECISIONS = 4  # in each, spread over the episode
ENTRIES = 1_500_000  # of attention, some three bytes each; if there are more, fewer decisions are offered
ABLATED = 16  # heads that are removed, one at a time; if there are more, those that read Q best


def write(run: Run, layer: int | None, head: int | None, tasks: int) -> pathlib.Path:
    """Measures a run and writes its page, and its pictures beside the page; returns the page's path.

    Args:
      layer, head: which head to show first, if it is not to be the best reader of Q among those that may be meant.
    """
    rows = trained.unseen_rows(run, tasks, seed=0)
    steps = offered_steps(run, np.asarray(rows.episodes.valid))
    view, start = (View(run, rows, steps, run.model(name)) for name in ("fine_tuned", "start"))
    shown = best_head(view, layer, head)
    removed = offered_heads(view, shown)
    rises_NI = regret_rises(view, removed)
    influences, moved = influence_is_bayes(view, start)
    headlines = [
        head_reads_q(view, start, shown),
        *logits_are_q(view, start),
        *influences,
        head_is_needed(rises_NI, removed, shown),
    ]
    page = run.directory / "attention_vs_q.html"
    folder = page.with_suffix("")
    folder.mkdir(exist_ok=True)
    for name, figure in pictures(view, shown, moved).items():
        pages.save(folder, name, figure)
    data = json.dumps(page_data(view, shown, removed, rises_NI), separators=(",", ":"), allow_nan=False)
    pages.render(
        page,
        "theory",
        "attention_vs_q.html",
        run=run,
        view=view,
        tasks=tasks,
        headlines=headlines,
        data=markupsafe.Markup(data.replace("<", "\\u003c")),
        made_with=provenance.in_words(),
    )
    return page


def best_head(view: View, layer: int | None, head: int | None) -> Head:
    """The best reader of Q on the first half of the tasks, among the heads of that layer or of that number."""
    half = len(view.correlation_NWXH) // 2
    means_XH = view.correlation_NWXH[:half, 0].mean(0)
    allowed_XH = np.full(means_XH.shape, -np.inf)
    allowed_XH[slice(layer, None if layer is None else layer + 1), slice(head, None if head is None else head + 1)] = 0
    return tuple(int(i) for i in np.unravel_index((allowed_XH + means_XH).argmax(), means_XH.shape))


def offered_steps(run: Run, valid_NET: np.ndarray) -> tuple[int, ...]:
    """The decisions that the page offers, by their steps in the last episode; most tasks come to them."""
    _, n_episodes, n_steps = valid_NET.shape
    positions = len(run.layout.opening) + n_episodes * (n_steps + 1) * run.layout.positions
    model = run.settings.model
    fits = max(1, ENTRIES // (sum(CONTEXTS.values()) * positions * model.layers * model.heads))
    reached = np.flatnonzero(valid_NET[:, -1].mean(0) > 0.5)
    spread = np.linspace(0, len(reached) - 1, min(DECISIONS, fits, len(reached))).round().astype(int)
    return tuple(int(t) for t in np.unique(reached[spread]))


def offered_heads(view: View, shown: Head) -> list[Head]:
    """The heads whose removal the page offers: the one that is shown first, and the best readers of Q."""
    means_XH = view.correlation_NWXH[:, 0].mean(0)
    order_N2 = np.stack(np.unravel_index(np.argsort(-means_XH, axis=None), means_XH.shape), 1)
    return [shown, *(head for head in map(tuple, order_N2.tolist()) if head != shown)][:ABLATED]


def offered_contexts(view: View, rng: np.random.Generator) -> list[tuple[str, int, float]]:
    """(kind, row, error) of the contexts: those with the least and the largest error of the logits, and random others.

    The error is the root mean square of the scaled logits less the planner's Q, or less Q* where there is no planner.
    """
    target_NWA = view.true_NWA if view.planner_NWA is None else view.planner_NWA
    error_N = np.sqrt(((view.logits_NWA - centred(target_NWA))[:, 0] ** 2).mean(-1))
    order, n = np.argsort(error_N), len(error_N)
    best, worst = (min(CONTEXTS[kind], n // 4) for kind in ("best", "worst"))
    others = rng.permutation(order[best : n - worst])[: CONTEXTS["random"]]
    rows = {"best": order[:best], "worst": order[::-1][:worst], "random": others}
    return [(kind, int(i), float(error_N[i])) for kind, chosen in rows.items() for i in chosen]


def page_data(view: View, head: Head, heads: list[Head], rises_NI: np.ndarray) -> dict:
    """Everything that the page's program shows (`theory/templates/attention_vs_q.js`), for JSON."""
    family, layout = view.rows.family, view.run.layout
    low, high = family.reward_range
    quantum = (high - low) / 10_000
    chosen = offered_contexts(view, np.random.default_rng(0))
    index_N = np.array([row for _, row, _ in chosen])
    episodes = jax.tree.map(lambda x: np.asarray(x)[index_N], view.rows.episodes)
    attention = view.attention(episodes)
    without = {head: view.logits(episodes, (head,)) for head in heads}
    beliefs = known_beliefs(view, index_N)
    regret_NW = regret(view.logits_NWA, view.true_NWA)
    means_WXH, half_WXH = correlations(view)
    layers, per_layer = means_WXH.shape[1:]

    def whole(values: np.ndarray) -> list:
        return np.rint(values / quantum).astype(int).tolist()

    def decision(n: int, w: int, moved_IWA: np.ndarray, exact_IWA: np.ndarray | None, pieces: np.ndarray) -> dict:
        row, step = index_N[n], view.steps[w]
        before = (episodes.action.shape[1] - 1) * episodes.action.shape[2] + step
        found = {
            "happens": bool(view.took_place_NW[row, w]),
            "state": int(episodes.observation[n, -1, step]),
            "q": whole(centred(view.true_NWA[row, w])),
            "logits": whole(view.logits_NWA[row, w]),
            "regret": whole(regret_NW[row, w]),
            "attention": ten_thousandths(attention[n, w][..., pieces]),
            "head": whole(centred(view.values_NWXHA[row, w])),
            "without": [whole(without[head][n, w]) for head in heads],
            "moved": whole(moved_IWA[:before, w]),
            "beliefs": {name: ten_thousandths(belief[n, w]) for name, belief in beliefs.items()},
        }
        if exact_IWA is not None:
            found |= {"planner": whole(centred(view.planner_NWA[row, w])), "exact": whole(exact_IWA[:before, w])}
        return found

    def context(n: int, kind: str, error: float) -> dict:
        own = jax.tree.map(lambda x: x[n], episodes)
        many = each_replaced(family, own, view.signal)
        moved_IWA, exact_IWA = view.logits(many) - view.logits_NWA[index_N[n]][None], None
        if view.planner_NWA is not None:
            exact_IWA = centred(view.planned(many) - view.planner_NWA[index_N[n]][None])
        prompt = encode(layout, jax.tree.map(lambda x: x[None], own))
        pieces = np.flatnonzero(np.asarray(prompt.tokens.valid)[0, : prompt.acting[-1, view.steps[-1]] + 1])
        found = {
            "kind": kind,
            "error": f"{error:.2g}",
            "state": own.observation[:, :-1].ravel().tolist(),
            "action": own.action.ravel().tolist(),
            "reward": [float(f"{r:.3g}") for r in own.reward.ravel().tolist()],
            "valid": own.valid.ravel().astype(int).tolist(),
            "pieces": view.step_L[pieces].tolist(),
            "decisions": [decision(n, w, moved_IWA, exact_IWA, pieces) for w in range(len(view.steps))],
        }
        if layout.positions > 1:
            found["tokens"] = token_texts(view.run, np.asarray(prompt.tokens.id)[0, pieces, 0])
        return found

    return {
        "quantum": quantum,
        "actions": family.n_actions,
        "layers": layers,
        "heads": per_layer,
        "head": list(head),
        "episodes": episodes.action.shape[1],
        "steps": episodes.action.shape[2],
        "decisions": list(view.steps),
        "signal": view.signal,
        "planner": view.planner,
        "hidden": family.hides_state,
        "correlation": np.round(means_WXH, 3).tolist(),
        "half": np.round(half_WXH, 3).tolist(),
        "removed": [list(each) for each in heads],
        "rises": [rise_of(rises_N) for rises_N in rises_NI.T],
        "contexts": [context(n, kind, error) for n, (kind, _, error) in enumerate(chosen)],
    }


def known_beliefs(view: View, index_N: np.ndarray) -> dict[str, np.ndarray]:
    """Where states are hidden, beliefs at the decisions of some rows by who holds them, (N, W, S)."""
    family = view.rows.family
    if not family.hides_state:
        return {}
    episodes = view.rows.episodes
    found = {"who knows the task": beliefs_in_the_task(view.rows.problem, episodes, view.steps)[index_N]}
    if isinstance(family, HasGrid):
        found["who has read the context"] = posterior(family, episodes, view.steps)[1][index_N]
    return found


def correlations(view: View) -> tuple[np.ndarray, np.ndarray]:
    """Mean rank correlation of every head at every decision, and half its 95 % interval over tasks, (W, X, H)."""
    found = [mean_and_half(view.correlation_NWXH[view.took_place_NW[:, w], w]) for w in range(len(view.steps))]
    return tuple(np.stack(each) for each in zip(*found))


def token_texts(run: Run, id_L: np.ndarray) -> list[str]:
    """The text of every token of a layout with one token in a position."""
    if run.settings.weights:
        from icdm.published.model import open_published  # needs the packages of the extra `language`

        tokenizer = open_published(run.settings.weights).tokenizer
        return [tokenizer.decode([int(id)], skip_special_tokens=False) for id in id_L]
    return [
        name if part.stop - part.start == 1 else f"{name} {id - part.start}"
        for id in id_L
        for name, part in run.layout.slices.items()
        if part.start <= id < part.stop
    ]


def ten_thousandths(shares: np.ndarray) -> list:
    return np.rint(10000 * shares).astype(int).tolist()


def rise_of(rises_N: np.ndarray) -> list[float]:
    """The mean and the ends of its interval, as the headline has them."""
    _, value, interval, _ = measured("", np.mean, rises_N, {})
    return [float(f"{x:.3g}") for x in (value, *interval)]
