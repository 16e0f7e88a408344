"""Loops iterate values: one more loop of a layer, one more step of value iteration, and more loops do no harm.

A model whose layers are one (`model.tied`) was trained to say the same Q after 1 to 8 loops. Its logits are read after
every loop and compared with the iterates of value iteration: Q^(j) is the posterior-mean planner's Q at the query with
j rewards to come. D(r, j) is the R2 of the logits after r loops on Q^(j). If loops iterate values, the j that explains
loop r best rises with r (Kendall's tau over the loops of training), and the logits stay right when the layer is applied
more often than in training: their squared error against the planner's Q does not rise.

A model with as many layers of their own, which was asked for values after the last alone, is read in the same way.
"""

import functools

import numpy as np
import scipy.stats
from matplotlib.figure import Figure

from icdm.models.transformer import Transformer
from icdm.runs.run import Run
from theory.book import Book
from theory.circuits import trained
from theory.circuits.regressions import pair_products, r_squared
from theory.circuits.trained import Rows, centred
from theory.figures import BLUE, CYCLE, GREY, panels
from theory.ledger import Claim

RISE = 1.1  # of the error, which more loops than in training may cost


def check(config) -> tuple[Claim, Figure]:
    runs = trained.runs_by_variant(config)
    looped, layered = (runs[variant] for variant in config.variants)
    rows, trained_loops = trained.unseen_rows(looped[0], config.tasks, config.seed), looped[0].settings.model.layers
    targets_JNA = iterates(rows)
    said = [logits_after_each(run, run.model("fine_tuned").looped(max(config.loops)), rows) for run in looped]
    error_NRQ = np.stack([errors(each_RNA, targets_JNA[-1]) for each_RNA in said], -1)
    sums_NRJQ3 = explained(said, targets_JNA)
    book = Book(config)
    book.measure("tau_of_loops", tau, sums_NRJQ3[:, :trained_loops], at_least=0.8)
    for loops in config.loops:
        if loops > trained_loops:
            ours, before = error_NRQ[:, loops - 1], error_NRQ[:, trained_loops - 1]
            book.measure(f"error_{loops}_loops_over_{trained_loops}", ratio, ours, before, at_most=RISE)
    for loops in config.loops:
        book.measure(f"best_iterate_{loops}_loops", functools.partial(best_iterate, loop=loops - 1), sums_NRJQ3)
        book.measure(f"r2_{loops}_loops", r_squared, sums_NRJQ3[:, loops - 1, -1])
        regret_NQ = np.stack([regrets(each_RNA[loops - 1], targets_JNA[-1]) for each_RNA in said], -1)
        book.measure(f"regret_{loops}_loops", np.mean, regret_NQ)
    book.control("regret_myopic", regrets(targets_JNA[0], targets_JNA[-1]).mean())
    others = {"layers_of_their_own": [(run, run.model("fine_tuned")) for run in layered]}
    others |= {"random_weights": [(looped[0], looped[0].model("start"))]}
    for name, models in others.items():
        book.control(
            f"tau_of_loops_{name}", tau(explained([logits_after_each(*own, rows) for own in models], targets_JNA))
        )
    claim = book.close(
        id="loops_iterate_values",
        claim="loops of one layer iterate values: after r loops the logits are nearest to a later iterate of value "
        "iteration than after r - 1, and more loops than in training do no harm",
        source="derived here; loops and their extrapolation: Yang et al., arXiv 2311.12424, 2024",
        metric="Kendall's tau of the loops and the iterate whose R2 with the logits after them is largest; squared "
        "error of tau logits against the posterior-mean planner's Q, more loops over those of training; regret of the "
        "first decision by that Q; mean over seeds, intervals over tasks",
    )
    return claim, draw(claim, sums_NRJQ3, trained_loops)


def iterates(rows: Rows) -> np.ndarray:
    """Centred Q at the query with 1, 2, ... rewards to come, (J, N, A)."""
    q_NTSA = rows.planned()
    q_NTA = q_NTSA[np.arange(len(q_NTSA)), :, rows.queries]
    return centred(np.moveaxis(q_NTA[:, ::-1], 1, 0))


def logits_after_each(run: Run, model: Transformer, rows: Rows) -> np.ndarray:
    """tau times the centred logits at the query, as the output matrix reads the stream after each loop, (R, N, A)."""
    residual_RND = trained.read(run.layout, model, rows.episodes).residual[1:]
    logits_RNA = model.logits(model.normed(residual_RND), run.layout.action_ids)
    return run.settings.labels.temperature * centred(np.asarray(logits_RNA, np.float64))


def explained(said: list[np.ndarray], targets_JNA: np.ndarray) -> np.ndarray:
    """The products of the logits after every loop and of every iterate, (N, R, J, Q, 3)."""
    pairs = [np.broadcast_arrays(x[:, None], targets_JNA[None]) for x in said]  # (R, J, N, A) each
    return np.stack([np.moveaxis(pair_products(*pair), 2, 0) for pair in pairs], -2)


def best_iterate(sums_NRJQ3: np.ndarray, loop: int) -> int:
    """How many rewards to come the iterate has that the logits after a loop fit best."""
    return int(np.argmax([r_squared(sums_NRJQ3[:, loop, j]) for j in range(sums_NRJQ3.shape[2])])) + 1


def tau(sums_NRJQ3: np.ndarray) -> float:
    """Kendall's tau of the loops and the best iterate; 0 where one is best throughout."""
    loops = range(sums_NRJQ3.shape[1])
    best = [best_iterate(sums_NRJQ3, loop) for loop in loops]
    return float(np.nan_to_num(scipy.stats.kendalltau(loops, best).statistic))


def errors(ours_RNA: np.ndarray, exact_NA: np.ndarray) -> np.ndarray:
    """Squared error of every loop, (N, R)."""
    return np.square(ours_RNA - exact_NA[None]).sum(-1).T


def ratio(ours_NQ: np.ndarray, before_NQ: np.ndarray) -> float:
    return float(ours_NQ.mean() / before_NQ.mean())


def regrets(ours_NA: np.ndarray, exact_NA: np.ndarray) -> np.ndarray:
    """What the planner's Q loses by the best action of ours, (N,)."""
    taken_N = np.take_along_axis(exact_NA, ours_NA.argmax(-1)[:, None], 1)[:, 0]
    return exact_NA.max(-1) - taken_N


def draw(claim: Claim, sums_NRJQ3: np.ndarray, trained_loops: int) -> Figure:
    figure, (nearest, regret) = panels(2, height=3.4)
    shown = np.arange(trained_loops)
    for j, color, marker in zip(range(sums_NRJQ3.shape[2]), CYCLE, "os^Dv*"):
        values = [r_squared(sums_NRJQ3[:, r, j]) for r in shown]
        nearest.plot(shown + 1, values, marker=marker, color=color, label=f"{j + 1} reward{'s' if j else ''} to come")
    nearest.set(xlabel="loops", ylabel="R$^2$ of the logits on the iterate", title="which iterate a loop is")
    nearest.legend()
    loops = [int(name.split("_")[1]) for name in claim.measured if name.startswith("regret_")]
    means = np.array([claim.measured[f"regret_{r}_loops"] for r in loops])
    low, high = np.array([claim.ci95[f"regret_{r}_loops"] for r in loops]).T
    regret.errorbar(loops, means, [means - low, high - means], marker="o", capsize=3, color=BLUE, label="the model")
    regret.axhline(claim.control["regret_myopic"], color=GREY, ls="--", label="a myopic reader")
    regret.axvline(trained_loops, color=GREY, linewidth=0.8)
    regret.set(xlabel="loops (to the line: in training)", ylabel="regret of the first decision, reward", xscale="log")
    regret.set(title="thinking longer", ylim=(0, None))
    regret.set_xticks(loops, map(str, loops))
    regret.minorticks_off()
    regret.legend()
    return figure
