"""Later layers hold later iterates of value iteration: what each adds to the ones before it appears in its turn.

Q^(j) is the posterior-mean planner's Q at the query with j rewards to come. Iterates are alike, so that any layer
"has" all of them; what counts is the innovation: Q^(j), less its mean over actions, less its regression on
Q^(1), ..., Q^(j-1). A ridge probe of the stream at the query, before the first layer and after each, predicts it; it is
fitted on one half of the tasks and scored on the other. Held if the layer that knows an innovation best comes later
for later ones (Kendall's tau of layer and j), and if the probes owe their R2 to the context: less the R2 for the
innovation of another task with the same query state (selectivity).

A probe of what was counted at the query's state, in the place of the stream, says what needs no layer: how often each
action was taken there, and its mean reward.
"""

import functools

import numpy as np
import scipy.stats
from matplotlib.figure import Figure

from theory.book import Book
from theory.circuits import trained
from theory.circuits.probes import difference, of_another_task, r_squared, squares
from theory.circuits.trained import Rows, centred
from theory.figures import CYCLE, GREY, panels
from theory.ledger import Claim


def check(config) -> tuple[Claim, Figure]:
    runs = trained.examined(config)
    rows = trained.unseen_rows(runs[0], config.tasks, config.seed)
    targets = innovations(rows, runs[0].settings.model.layers)
    streams = [trained.read(run.layout, run.model("fine_tuned"), rows.episodes).residual for run in runs]
    untrained = [trained.read(runs[0].layout, runs[0].model("start"), rows.episodes).residual]
    found = scores(streams, targets, config.ridges)
    others = scores(streams, [of_another_task(rows, target) for target in targets], config.ridges)
    at_random = scores(untrained, targets, config.ridges)
    counted = [squares(counts(rows), target, config.ridges)[:, None] for target in targets]
    book = Book(config)
    book.measure("tau", tau, found, at_least=0.8)
    book.measure("least_selectivity", least_selectivity, found, others, at_least=0.3)
    for j in range(len(targets)):
        best = best_layer(found, j)
        book.measure(f"probe_r2_{j + 1}", r_squared, found[:, :, j, best])
        book.measure(f"probe_layer_{j + 1}", functools.partial(best_layer, j=j), found)
        book.control(f"probe_r2_{j + 1}_of_another_task", r_squared(others[:, :, j, best]))
        book.control(f"probe_r2_{j + 1}_counted", r_squared(counted[j]))
        book.control(f"probe_r2_{j + 1}_random_weights", max(map(r_squared, np.moveaxis(at_random[:, :, j], 2, 0))))
    claim = book.close(
        id="layers_hold_iterates",
        claim="what each iterate of value iteration adds to the ones before it is found in a later layer than what the "
        "one before adds",
        source="derived here",
        metric="ridge probes of the stream at the query for Q with j rewards to come, less its regression on those "
        "with fewer: Kendall's tau of the best layer and j; the least selectivity; R2 on unseen tasks, mean over seeds",
    )
    return claim, draw(found, others, counted)


def innovations(rows: Rows, n: int) -> list[np.ndarray]:
    """What Q^(1), ..., Q^(n) add to those before them, (N, A) each."""
    q_NTSA = rows.planned()
    every, horizon = np.arange(len(q_NTSA)), q_NTSA.shape[1]
    iterates = [centred(q_NTSA[every, horizon - j, rows.queries]) for j in range(1, n + 1)]
    found = []
    for j, own_NA in enumerate(iterates):
        before_IJ = np.stack([x.ravel() for x in iterates[:j]], -1) if j else np.zeros((own_NA.size, 1))
        weights_J = np.linalg.lstsq(before_IJ, own_NA.ravel(), rcond=None)[0]
        found.append(own_NA - (before_IJ @ weights_J).reshape(own_NA.shape))
    return found


def scores(streams: list[np.ndarray], targets: list[np.ndarray], ridges) -> np.ndarray:
    """The squared errors of every probe, (N / 2, Q seeds, J iterates, X + 1 streams, 2)."""
    return np.stack(
        [
            np.stack([np.stack([squares(x, target, ridges) for x in stream_XND], 1) for target in targets], 1)
            for stream_XND in streams
        ],
        1,
    )


def best_layer(squares_NQJX2: np.ndarray, j: int) -> int:
    """The number of the stream, 0 before the first layer, whose probe knows innovation j best."""
    return int(np.argmax([r_squared(squares_NQJX2[:, :, j, x]) for x in range(squares_NQJX2.shape[3])]))


def tau(squares_NQJX2: np.ndarray) -> float:
    """Kendall's tau of j and the best layer; 0 where one layer is best for all."""
    layers = [best_layer(squares_NQJX2, j) for j in range(squares_NQJX2.shape[2])]
    return float(np.nan_to_num(scipy.stats.kendalltau(range(len(layers)), layers).statistic))


def least_selectivity(ours_NQJX2: np.ndarray, theirs_NQJX2: np.ndarray) -> float:
    """R2 at the best layer less that for another task, of the innovation where it is least."""
    found = []
    for j in range(ours_NQJX2.shape[2]):
        best = best_layer(ours_NQJX2, j)
        found.append(difference(ours_NQJX2[:, :, j, best], theirs_NQJX2[:, :, j, best]))
    return min(found)


def counts(rows: Rows) -> np.ndarray:
    """How often each action was taken in the query's state, and its mean reward, (N, 2 A)."""
    here_NET = rows.context_steps & (np.asarray(rows.episodes.steps.observation) == rows.queries[:, None, None])
    taken_NETA = here_NET[..., None] & (np.asarray(rows.episodes.action)[..., None] == np.arange(rows.family.n_actions))
    count_NA = taken_NETA.sum((1, 2))
    reward_NA = (taken_NETA * np.asarray(rows.episodes.reward)[..., None]).sum((1, 2)) / np.maximum(count_NA, 1)
    return np.concatenate([count_NA, reward_NA], -1)


def draw(found, others, counted) -> Figure:
    figure, (axis,) = panels(height=3.4)
    figure.set_figwidth(5.8)
    x_X = np.arange(found.shape[3])
    for j, color, marker in zip(range(found.shape[2]), CYCLE, "os^Dv*"):
        for squares_NQX2, style, width in ((found[:, :, j], "-", 1.6), (others[:, :, j], ":", 0.8)):
            label = f"with {j + 1} to come" if style == "-" else None
            values = [r_squared(squares_NQX2[:, :, x]) for x in x_X]
            axis.plot(x_X, values, style + marker, color=color, linewidth=width, markersize=4, label=label)
        axis.plot([-0.4], [r_squared(counted[j])], marker, color=color, markersize=6, markerfacecolor="none")
    axis.axhline(0, color=GREY, linewidth=0.8)
    axis.set_xticks([-0.4, *x_X], ["counted", "embedding", *(f"layer {x}" for x in x_X[:-1])], rotation=30)
    axis.set(ylabel="R$^2$ of what the iterate adds, unseen tasks", title="dotted: the iterate of another task")
    axis.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return figure
