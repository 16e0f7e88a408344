"""The value of an action, read off the attention of one head of the fine-tuned transformer.

The query is the first decision after the context. A head's attention to the steps i of the context gives

    value(a) = sum_i attention_i [a_i = a] G_i / sum_i attention_i [a_i = a],

G_i the discounted return from step i to the end of its episode. Its Spearman correlation over the actions with Q*(s, .)
is averaged over tasks. The best head is chosen on one half of the tasks and measured on the other, where its p-value
comes from assigning its attention to other tasks at random. The references attend equally to all steps, or equally to
the steps at the query's own state. Two shares of the heads' attention to the context describe what they attend to: the
share on the query's own state, and the largest share on one action, both means over all heads.
"""

import numpy as np
from matplotlib.figure import Figure

from theory.book import Book
from theory.circuits import trained
from theory.circuits.attention_figures import heat_map
from theory.circuits.heads import head_correlations, spearman, unit_ranks, values_read
from theory.figures import BLUE, GREEN, GREY, ORANGE, panels
from theory.ledger import Claim

SHARES = ("query_state", "one_action")


def check(config) -> tuple[Claim, Figure]:
    rng = np.random.default_rng(config.seed)
    book, pictures = Book(config, rng), {}
    studies = trained.studies(config)
    for layout, seeds in studies.items():
        found = {name: [best_head(study, name) for study in seeds] for name in seeds[0].readings}
        own = {name: np.mean([kept_N for _, kept_N in found[name]], axis=0) for name in found}
        rival = max(seeds[0].controls, key=lambda name: own[name].mean())
        margin_N = own["fine_tuned"] - own[rival]
        book.measure(f"best_head_{layout}", np.mean, own["fine_tuned"])
        book.measure(f"margin_{layout}", np.mean, margin_N, at_least=0)
        heads = [head for head, _ in found["fine_tuned"]]
        p_values = [p_value(study, head, config.permutations, rng) for study, head in zip(seeds, heads)]
        book.enter(f"largest_p_value_{layout}", max(p_values), at_most=0.01)
        for name in ("fine_tuned", "random_start"):
            shares = np.mean([attended_shares(study, name) for study in seeds], axis=0)
            enter, label = (book.enter, "") if name == "fine_tuned" else (book.control, f"_{name}")
            for what, share in zip(SHARES, shares):
                enter(f"attention_on_{what}{label}_{layout}", share)
        for name in seeds[0].controls:
            book.control(f"best_head_{name}_{layout}", own[name].mean())
        pictures[layout] = np.moveaxis(head_correlations(seeds[0], "fine_tuned"), 0, 1), own
    rows = next(iter(studies.values()))[0].rows
    for name, correlation_N in references(rows).items():
        book.control(name, correlation_N.mean())
    claim = book.close(
        id="attention_reads_returns",
        claim="returns weighted by the attention of one head rank the actions as Q* does",
        source="derived here",
        metric="Spearman correlation over actions with Q*(s, .), mean over the tasks that the head was not chosen on "
        "and over seeds; margin over the strongest control; largest permutation p-value of the seeds; shares of all "
        "heads' attention to the context on the query's state and on the action that a head attends to most",
    )
    return claim, draw(pictures)


def best_head(study, name: str) -> tuple[tuple[int, int], np.ndarray]:
    """(the best (layer, head) on the first half of the tasks, its correlations on the second half)."""
    correlation_NXH = head_correlations(study, name)
    half = len(correlation_NXH) // 2
    means_XH = correlation_NXH[:half].mean(0)
    head = tuple(int(i) for i in np.unravel_index(means_XH.argmax(), means_XH.shape))
    return head, correlation_NXH[half:, *head]


def attended_shares(study, name: str) -> tuple[float, float]:
    """Shares of all heads' attention to the context: on the query's state, on each head's most attended action."""
    weight_XNHET = study.readings[name].attention[:, :, :, :-1]
    episodes, total_XH = study.rows.episodes, weight_XNHET.sum((1, 3, 4))
    here_NET = np.asarray(episodes.observation)[:, :-1, :-1] == study.rows.queries[:, None, None]
    taken_NETA = np.asarray(episodes.action)[:, :-1, :, None] == np.arange(episodes.q.shape[-1])
    on_state_XH = np.einsum("xnhet,net->xh", weight_XNHET, here_NET)
    on_action_XHA = np.einsum("xnhet,neta->xha", weight_XNHET, taken_NETA)
    return float((on_state_XH / total_XH).mean()), float((on_action_XHA.max(-1) / total_XH).mean())


def p_value(study, head: tuple[int, int], permutations: int, rng) -> float:
    """Share of random assignments of the second half's readings to tasks that correlate at least as well."""
    layer, number = head
    half = len(study.rows.queries) // 2
    attention = study.readings["fine_tuned"].attention[layer : layer + 1, :, number : number + 1]
    values_NA = values_read(attention, study.rows.episodes, study.run.family.discount)[0, :, 0]
    x, y = unit_ranks(values_NA[half:]), unit_ranks(study.rows.true_q()[half:])
    dealt = [(x[rng.permutation(len(x))] * y).sum(-1).mean() for _ in range(permutations)]
    return float((1 + np.sum(np.array(dealt) >= (x * y).sum(-1).mean())) / (1 + permutations))


def references(rows) -> dict[str, np.ndarray]:
    """Correlations that need no model, (N,): equal weights of all steps, or of those at the query's state."""
    state_NET = np.asarray(rows.episodes.observation)[..., :-1]
    here_NET = (state_NET == rows.queries[:, None, None]).astype(float)

    def against_q(weight_NET):
        values_NA = values_read(weight_NET[None, :, None], rows.episodes, rows.family.discount)[0, :, 0]
        return spearman(values_NA, rows.true_q())

    return {
        "all_steps_alike": against_q(np.ones_like(here_NET)),
        "steps_at_the_query_state_alike": against_q(here_NET),
        "posterior_mean_planner": spearman(rows.reader_q(), rows.true_q()),
    }


def draw(pictures) -> Figure:
    figure, axes = panels(2 * len(pictures))
    for (maps, bars), (layout, (correlation_XNH, own)) in zip(zip(axes[::2], axes[1::2]), pictures.items()):
        heat_map(maps, correlation_XNH, f"{layout}, seed 0")
        colors = (BLUE, GREY, ORANGE, GREEN)
        names = [name.replace("_", "\n") for name in own]
        means = [correlation_N.mean() for correlation_N in own.values()]
        errors = [1.96 * correlation_N.std() / len(correlation_N) ** 0.5 for correlation_N in own.values()]
        bars.bar(names, means, yerr=errors, color=colors)
        bars.set(ylabel="rank correlation with Q*(s, $\\cdot$)", title=f"best head, {layout}")
    return figure
