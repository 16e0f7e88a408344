"""The logits are a sum over positions: the query reads the steps in its own state, where values are ready.

With the scale of the final norm held, the logits at the query are exactly the embedding's term, one of each MLP, and
one of every head at every position (`theory.circuits.attribution`). A share is the slope of a part's terms on the
whole, the part of the logits' variance that it carries; shares add up to 1.

What a step in the query's own state adds to the logit of its own action, times the number of such steps in the context,
is regressed on the step's reward r_i and on V(s_i') of the posterior-mean planner, with one decision less to come. The
partial R2 of V is that of what r_i leaves of both. With V of another task it should be none.

For the head whose steps in the query's state carry most the path from there to the output matrix is cut, the final norm
computed anew, and the change of the logits compared with the terms.
"""

import numpy as np
from matplotlib.figure import Figure

from theory.book import Book
from theory.circuits import trained
from theory.circuits.attribution import Terms, logits_without, terms
from theory.circuits.regressions import pair_products, r_squared, slope
from theory.circuits.trained import Rows, centred
from theory.figures import BLUE, GREY, ORANGE, panels
from theory.ledger import Claim

PARTS = ("attention", "mlp", "embedding", "own_state", "other_states", "elsewhere")


def check(config) -> tuple[Claim, Figure]:
    runs = trained.examined(config)
    rows = trained.unseen_rows(runs[0], config.tasks, config.seed)
    here_NET = own_state(rows)
    later_NET, other_NET = later_values(rows), later_values(rows, shift=1)
    layers = range(runs[0].settings.model.layers)
    errors, shares, paths, partial, unrelated, found = [], {part: [] for part in PARTS}, [], [], [], []
    for run in runs:
        model = run.model("fine_tuned")
        of_run = terms(run.layout, model, rows.episodes)
        errors.append(np.abs(of_run.total - of_run.logits).max() / np.abs(of_run.logits).max())
        for part, term_NA in parts_of(of_run, here_NET).items():
            shares[part].append(pair_products(term_NA, of_run.logits))
        head = most_read(of_run, here_NET)
        term_NA = (of_run.attention[:, *head] * here_NET[..., None]).sum((1, 2))
        cut_NA = of_run.logits - logits_without(run.layout, model, rows.episodes, head, here_NET)
        paths.append(pair_products(cut_NA, term_NA))
        added_XNET = np.stack([of_own_action(of_run.attention[:, i].sum(1), rows, here_NET) for i in layers])
        partial.append([moments(x, rows, later_NET, here_NET) for x in (added_XNET.sum(0), *added_XNET)])
        unrelated.append(moments(added_XNET.sum(0), rows, other_NET, here_NET))
        found.append((of_run, added_XNET.sum(0)))
    book = Book(config)
    book.enter("exact_error", max(errors), at_most=1e-5)
    for part in PARTS:
        limit = {"at_least": 0.5} if part == "own_state" else {}
        book.measure(f"share_{part}", slope, np.stack(shares[part], 1), **limit)
    whole, *by_layer = np.array(partial).transpose(1, 2, 0, 3, 4)
    book.measure("partial_r2", partial_r2, whole, at_least=0.5)
    for i in layers:
        book.measure(f"partial_r2_written_by_{i}", partial_r2, by_layer[i])
    book.measure("path_r2", r_squared, np.stack(paths, 1), at_least=0.9)
    book.measure("partial_r2_of_another_task", partial_r2, np.stack(unrelated, 1), at_most=0.1)
    start = terms(runs[0].layout, runs[0].model("start"), rows.episodes)
    untrained = parts_of(start, here_NET)["own_state"]
    book.control("share_own_state_random_weights", slope(pair_products(untrained, start.logits)[:, None]))
    own = (here_NET & rows.context_steps).sum() / rows.context_steps.sum()
    book.control("share_own_state_of_all_steps", own)
    claim = book.close(
        id="logits_by_position",
        claim="the logits are, exactly, a sum over positions; steps in the query's own state carry most of it, and "
        "what is read there holds the value of the state that came next",
        source="Elhage et al., 2021 (the sum); Fang and Rajan, arXiv 2506.19686, 2025 (cached values)",
        metric="shares of the logits' variance, which add up to 1; partial R2 of V(s') given r in what a step "
        "adds to the logit of its own action; R2 of the logits' change when the path of the largest head is cut",
    )
    return claim, draw(*found[0], rows, later_NET, here_NET, claim)


def own_state(rows: Rows) -> np.ndarray:
    """Whether a step of the context was recorded in the query's state, (N, E, T)."""
    origin_NET = np.asarray(rows.episodes.steps.observation)
    return (origin_NET == rows.queries[:, None, None]) & rows.context_steps


def later_values(rows: Rows, shift: int = 0) -> np.ndarray:
    """max_a Q(s', a) of the posterior-mean planner at the arrival of every step, (N, E, T), with one decision less to
    come than at the query; or that of the task so many rows on."""
    value_NS = np.roll(rows.planned()[:, 1].max(-1), shift, axis=0)
    arrival_NET = np.asarray(rows.episodes.steps.arrival)
    known_NET = np.clip(arrival_NET, 0, value_NS.shape[1] - 1)
    return value_NS[np.arange(len(value_NS))[:, None, None], known_NET]


def parts_of(found: Terms, here_NET: np.ndarray) -> dict[str, np.ndarray]:
    """The terms of each of PARTS, (N, A)."""
    by_step_NETA = found.attention.sum((1, 2))
    own_NA = (by_step_NETA * here_NET[..., None]).sum((1, 2))
    elsewhere_NA, all_NA = found.elsewhere.sum((1, 2)), by_step_NETA.sum((1, 2))
    parts = all_NA + elsewhere_NA, found.mlp.sum(1), found.embedding, own_NA, all_NA - own_NA, elsewhere_NA
    return dict(zip(PARTS, parts))


def carried(found: Terms, here_NET: np.ndarray) -> np.ndarray:
    """The share of the logits' variance that each head's steps in the query's state carry, (X, H)."""
    own_NXHA = np.einsum("nxheta,net->nxha", found.attention, here_NET.astype(np.float32))
    whole_NA = centred(found.logits)
    return np.einsum("nxha,na->xh", centred(own_NXHA), whole_NA) / (whole_NA**2).sum()


def most_read(found: Terms, here_NET: np.ndarray) -> tuple[int, int]:
    """(layer, head) whose steps in the query's state carry most of the logits."""
    carried_XH = carried(found, here_NET)
    return np.unravel_index(carried_XH.argmax(), carried_XH.shape)


def of_own_action(added_NETA: np.ndarray, rows: Rows, here_NET: np.ndarray) -> np.ndarray:
    """What each step adds to the centred logit of its own action, times the number of steps in the query's state,
    among which attention is shared out, (N, E, T)."""
    action_NET1 = np.asarray(rows.episodes.action)[..., None]
    own_NET = np.take_along_axis(centred(added_NETA), action_NET1, -1)[..., 0]
    return own_NET * here_NET.sum((1, 2), keepdims=True)


def moments(value_NET: np.ndarray, rows: Rows, later_NET: np.ndarray, here_NET: np.ndarray) -> np.ndarray:
    """Sums of products of (1, r, V, value) over the steps in the query's state, (N, 4, 4)."""
    columns = np.ones(value_NET.shape), np.asarray(rows.episodes.reward), later_NET, value_NET
    x_NETC = np.stack([np.where(here_NET, x, 0) for x in columns], -1).astype(np.float64)
    return np.einsum("netc,netd->ncd", x_NETC, x_NETC)


def partial_r2(sums_NQCC: np.ndarray) -> float:
    """Share of the value's variance that V explains, of what 1 and r leave of both; mean over Q seeds."""

    def of_seed(sums_CC: np.ndarray) -> float:
        given, left = sums_CC[:2, :2], sums_CC[2:, :2]
        rest = sums_CC[2:, 2:] - left @ np.linalg.solve(given, left.T)
        return rest[0, 1] ** 2 / (rest[0, 0] * rest[1, 1])

    return float(np.mean([of_seed(sums_CC) for sums_CC in sums_NQCC.sum(0)]))


def draw(found: Terms, added_NET, rows: Rows, later_NET, here_NET, claim) -> Figure:
    figure, (left, middle, right) = panels(3, height=3.4)
    shares = [claim.measured[f"share_{part}"] for part in PARTS]
    low, high = np.array([claim.ci95[f"share_{part}"] for part in PARTS]).T
    colors = [GREY] * 3 + [BLUE] + [ORANGE] * 2
    left.barh(range(len(PARTS)), shares, xerr=[shares - low, high - shares], color=colors)
    left.set_yticks(range(len(PARTS)), [part.replace("_", " ") for part in PARTS])
    left.invert_yaxis()
    left.set(xlabel="share of the logits' variance", title="what carries the logits")
    share_XH = carried(found, here_NET)
    image = middle.imshow(share_XH, cmap="PuOr", vmin=-1, vmax=1)
    middle.set(xlabel="head", ylabel="layer", title="steps in the query's state")
    middle.set(xticks=range(share_XH.shape[1]), yticks=range(share_XH.shape[0]))
    figure.colorbar(image, ax=middle, label="share of the logits' variance", shrink=0.8)
    reward_NET = np.asarray(rows.episodes.reward)
    for reward, color, marker in zip(np.unique(reward_NET[here_NET]), (BLUE, ORANGE), "os"):
        these = here_NET & (reward_NET == reward)
        which = np.flatnonzero(these.ravel())[:: max(1, these.sum() // 1500)]
        x, y = later_NET.ravel()[which], added_NET.ravel()[which]
        right.plot(x, y, marker, color=color, alpha=0.3, markersize=3, label=f"reward {reward:g}")
    right.set(xlabel="V of the state that came next, reward", ylabel="added to its action's logit, times steps")
    right.set(title="steps in the query's state")
    right.legend()
    return figure
