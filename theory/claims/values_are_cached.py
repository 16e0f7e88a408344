"""Values of later decisions are computed in the positions of the context, and the query reads them there.

One recorded reward of each context is flipped, as in `influence_is_bayes`: at the query's own state (k = 0), and one
step away (k = 1), where it matters through a later decision alone. In some layers the positions of the context then
attend to themselves alone, so that a transition cannot learn what others show; the query still attends to all of them.
If values are computed by the query, its slope at k = 1 stays; if they are computed in the context and cached there, as
Fang and Rajan find, it goes. The influence of rewards at the query's own state has to stay, or the cut has broken the
model.
"""

import numpy as np
from matplotlib.figure import Figure

from theory.book import Book
from theory.circuits import trained
from theory.circuits.influence import Influence, distances, flip, planned_change
from theory.circuits.regressions import pair_products, r_squared, slope
from theory.figures import BLUE, GREY, ORANGE, panels
from theory.ledger import Claim


def check(config) -> tuple[Claim, Figure]:
    runs = trained.examined(config)
    rows = trained.unseen_rows(runs[0], config.tasks, config.seed)
    every, rng = tuple(range(runs[0].settings.model.layers)), np.random.default_rng(config.seed)
    cuts = {"nowhere": (), "everywhere": every} | {f"in_layer_{i}": (i,) for i in every}
    models = [run.model("fine_tuned") for run in runs]
    read = {cut: [Influence(*own, rows, alone) for own in zip(runs, models)] for cut, alone in cuts.items()}
    distance_NET, sums = distances(rows), {}
    for k in (0, 1):
        reward_NET, kept_N = flip(rows, distance_NET == k, rng)
        exact_NA = planned_change(rows, reward_NET)[kept_N]
        for cut, own in read.items():
            changes = [influence.change(reward_NET)[kept_N] for influence in own]
            sums[cut, k] = np.stack([pair_products(change_NA, exact_NA) for change_NA in changes], 1)
    book = Book(config, rng)
    book.measure("slope_1_whole", slope, sums["nowhere", 1])
    book.measure("share_left_1", share, sums["everywhere", 1], sums["nowhere", 1], at_most=0.2)
    book.measure("r2_0", r_squared, sums["everywhere", 0], at_least=0.8)
    book.measure("share_left_0", share, sums["everywhere", 0], sums["nowhere", 0])
    for i in every[:-1]:
        book.measure(f"share_left_1_layer_{i}", share, sums[f"in_layer_{i}", 1], sums["nowhere", 1])
    book.control("share_left_1_last_layer", share(sums[f"in_layer_{every[-1]}", 1], sums["nowhere", 1]))
    claim = book.close(
        id="values_are_cached",
        claim="values of later decisions are computed in the context's positions, not by the query: without attention "
        "among these, a reward one step away loses its influence, one at the query's own state does not",
        source="the rival of Fang and Rajan, arXiv 2506.19686, 2025",
        metric="share of the slope (change of tau logits on the change of the posterior-mean planner's Q) that is left "
        "when the context's positions attend to themselves alone, in all layers or in one; k steps from the query",
    )
    return claim, draw(sums)


def share(cut_NQ3: np.ndarray, whole_NQ3: np.ndarray) -> float:
    """The slope that is left, as a share of the whole one."""
    return slope(cut_NQ3) / slope(whole_NQ3)


def draw(sums) -> Figure:
    figure, (axis,) = panels(height=3.4)
    figure.set_figwidth(5.4)
    cuts = list(dict.fromkeys(cut for cut, _ in sums))
    for k, color, offset in ((0, BLUE, -0.2), (1, ORANGE, 0.2)):
        slopes = [slope(sums[cut, k]) for cut in cuts]
        axis.bar(np.arange(len(cuts)) + offset, slopes, 0.4, color=color, label=f"reward {k} steps away")
    axis.axhline(1, color=GREY, linewidth=0.8)
    axis.set_xticks(range(len(cuts)), [cut.replace("_", " ") for cut in cuts], rotation=30)
    axis.set(ylabel="slope against the exact posterior", title="no attention among the context's positions")
    axis.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return figure
