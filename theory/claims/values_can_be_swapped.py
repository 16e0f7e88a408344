"""The value of a state one step away can be swapped in the stream of the context's positions, and decisions follow.

Two contexts differ in all rewards recorded in one state z alone, to which one step leads from the query's state: each
is replaced by its opposite in the second. The model reads the first while, at one place of the stream, some positions
hold what they hold when it reads the second: those of steps that lead to z (`into`), those of steps in z (`at`),
`both`, or, as a control, as many others as the first (`others`). The change of tau times the centred logits is compared
with the change of the exact posterior's Q from the first context to the second: slope through the origin, and the share
of the tasks in which the planner's best action changes where the model's becomes the planner's new one.

If values are computed in the context's positions and cached there, what the rewards say has to move, from layer to
layer, from the steps in z to those that lead to z. Bush et al. (2025) swap plans so in a Sokoban agent.
"""

import numpy as np
from matplotlib.figure import Figure

from icdm.errors import UserError
from theory.book import Book
from theory.circuits import trained
from theory.circuits.influence import opposite, planned_change, reachable
from theory.circuits.patching import patched_logits
from theory.circuits.regressions import pair_products, slope
from theory.circuits.trained import Rows, centred
from theory.figures import BLUE, GREEN, GREY, ORANGE, panels
from theory.ledger import Claim

SETS = ("into", "at", "both", "others")


def check(config) -> tuple[Claim, Figure]:
    runs = trained.examined(config)
    rows, rng = trained.unseen_rows(runs[0], config.tasks, config.seed), np.random.default_rng(config.seed)
    state_N, kept_N = neighbours(rows, rng)
    sets = step_sets(rows, state_N, rng)
    reward_NET = opposite(rows, sets["at"])
    exact_NA = planned_change(rows, reward_NET)[kept_N]
    planned_NA = rows.reader_q()[kept_N]
    best_N = (planned_NA + exact_NA).argmax(-1)
    half = len(best_N) // 2  # on the first the layer is chosen, on the second it is measured
    moved_N = (best_N != planned_NA.argmax(-1)) & (np.arange(len(best_N)) >= half)
    if not half or not moved_N.any():
        raise UserError(f"values_can_be_swapped.tasks {config.tasks}: no best action changes, give more tasks")
    places = ["embed", *(f"{i}.out" for i in range(runs[0].settings.model.layers - 1))]
    sums, follows = {}, {}
    for run in runs:
        model, tau = run.model("fine_tuned"), run.settings.labels.temperature
        other = rows.with_rewards(reward_NET).episodes
        before_NA, after_NA = (trained.query_logits(run.layout, model, x) for x in (rows.episodes, other))
        found = {("whole", ""): after_NA}
        for place in places:
            for name, steps_NET in sets.items():
                found[name, place] = patched_logits(run.layout, model, rows.episodes, other, place, steps_NET)
        for key, logits_NA in found.items():
            change_NA = tau * centred(logits_NA - before_NA)[kept_N]
            sums.setdefault(key, []).append(pair_products(change_NA, exact_NA))
            follows.setdefault(key, []).append((logits_NA[kept_N].argmax(-1) == best_N)[moved_N])
    sums = {key: np.stack(each, 1) for key, each in sums.items()}
    follows = {key: np.stack(each, 1).astype(float) for key, each in follows.items()}
    best = max(places, key=lambda place: slope(sums["into", place][:half]))
    book = Book(config, rng)
    book.measure("slope", slope, sums["into", best][half:], at_least=0.5)
    book.measure("follows", np.mean, follows["into", best], at_least=0.7)
    book.enter("layers_before", places.index(best))
    book.measure("slope_whole", slope, sums["whole", ""])
    book.measure("follows_whole", np.mean, follows["whole", ""])
    for place in places:
        for name in SETS:
            limit = {"at_most": 0.1} if (name, place) == ("others", best) else {}
            book.measure(f"slope_{name}_{place.replace('.', '_')}", slope, sums[name, place], **limit)
    book.control("follows_others", follows["others", best].mean())
    book.enter("tasks", len(exact_NA))
    book.enter("tasks_whose_best_action_changes", int(moved_N.sum()))
    claim = book.close(
        id="values_can_be_swapped",
        claim="the value of a state one step away can be swapped in the stream at the steps that lead there, and the "
        "logits and decisions follow",
        source="in the manner of Bush et al., arXiv 2504.01871, 2025",
        metric="slope of the change of tau logits on the change of the posterior-mean planner's Q, and share of its "
        "changed best actions that the model takes, with positions of the context patched; layer chosen on one half",
    )
    return claim, draw(claim, places)


def neighbours(rows: Rows, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """One random state for each row to which the query's state leads, other than itself, where the context has steps
    from there that arrive in it and steps in it; and which rows have one."""
    n, every = len(rows.queries), np.arange(len(rows.queries))
    origin_NET, arrival_NET = (np.asarray(x) for x in (rows.episodes.steps.observation, rows.episodes.steps.arrival))
    S = rows.family.n_states
    seen_NS, entered_NS = np.zeros((n, S), bool), np.zeros((n, S), bool)
    row, episode, step = np.nonzero(rows.context_steps)
    seen_NS[row, origin_NET[row, episode, step]] = True
    from_query = origin_NET[row, episode, step] == rows.queries[row]
    entered_NS[row[from_query], arrival_NET[row, episode, step][from_query]] = True
    eligible_NS = reachable(rows)[every, rows.queries] & seen_NS & entered_NS
    eligible_NS[every, rows.queries] = False
    if not eligible_NS.any():
        raise UserError("no context shows a state one step from the query's: show more episodes")
    return (eligible_NS * rng.random(eligible_NS.shape)).argmax(-1), eligible_NS.any(-1)


def step_sets(rows: Rows, state_N: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """The steps of the context that each of SETS means, (N, E, T) bool."""
    valid_NET = rows.context_steps
    origin_NET, arrival_NET = (np.asarray(x) for x in (rows.episodes.steps.observation, rows.episodes.steps.arrival))
    into_NET, at_NET = (valid_NET & (x == state_N[:, None, None]) for x in (arrival_NET, origin_NET))
    into_NET = into_NET & ~at_NET
    rest_NI = (valid_NET & ~into_NET & ~at_NET).reshape(len(state_N), -1)
    rank_NI = (-(rest_NI * rng.random(rest_NI.shape))).argsort(-1).argsort(-1)
    others_NI = rest_NI & (rank_NI < into_NET.sum((1, 2))[:, None])
    return dict(into=into_NET, at=at_NET, both=into_NET | at_NET, others=others_NI.reshape(valid_NET.shape))


def draw(claim: Claim, places: list[str]) -> Figure:
    figure, (axis,) = panels(height=3.2)
    figure.set_figwidth(6.4)
    labels = ("steps that lead to the state", "steps in the state", "both", "as many others as lead there")
    for name, label, color, marker in zip(SETS, labels, (ORANGE, BLUE, GREEN, GREY), "osD^"):
        keys = [f"slope_{name}_{place.replace('.', '_')}" for place in places]
        means = np.array([claim.measured[key] for key in keys])
        low, high = np.array([claim.ci95[key] for key in keys]).T
        axis.errorbar(range(len(places)), means, [means - low, high - means], marker=marker, color=color, label=label)
    axis.axhline(claim.measured["slope_whole"], color=GREY, linewidth=0.8, ls="--", label="the whole other context")
    axis.set(xticks=range(len(places)), xlabel="layers before the swap", ylabel="slope against the exact posterior")
    axis.set(title="swapped positions of the context")
    axis.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return figure
