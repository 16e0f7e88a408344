"""The value of an action, read off where a head of the fine-tuned transformer attends.

The query is the first decision after the context. A head's attention to the steps i of the context gives

    value(a) = sum_i attention_i [a_i = a] G_i / sum_i attention_i [a_i = a],

G_i the discounted return from step i to the end of its episode. Its Spearman correlation over the actions with Q*(s, .)
is averaged over tasks. The best head is chosen on one half of the tasks and measured on the other; there its
p-value is that of attention dealt to other tasks. References: attention to all steps alike, and to the steps at the
query's own state alike. To say what heads attend to at all: the share of their attention to the context that falls on
the query's own state, and the largest share that falls on one and the same action, means over all heads.
"""

import numpy as np
from matplotlib.figure import Figure
from scipy.stats import rankdata

from theory.circuits import trained
from theory.figures import BLUE, GREEN, GREY, ORANGE, panels
from theory.ledger import Claim
from theory.statistics import bootstrap_interval

NAMES = ("fine_tuned", *trained.CONTROLS)
SHARES = ("query_state", "one_action")


def check(config) -> tuple[Claim, Figure]:
    rng = np.random.default_rng(config.seed)
    measured, ci95, control, threshold, pictures = {}, {}, {}, {}, {}
    studies = trained.studies(config)
    for layout, seeds in studies.items():
        found = {name: [best_head(study, name) for study in seeds] for name in NAMES}
        own = {name: np.mean([kept_N for _, kept_N in found[name]], axis=0) for name in NAMES}
        rival = max(trained.CONTROLS, key=lambda name: own[name].mean())
        margin_N = own["fine_tuned"] - own[rival]
        measured[f"best_head_{layout}"] = float(own["fine_tuned"].mean())
        measured[f"margin_{layout}"] = float(margin_N.mean())
        ci95[f"best_head_{layout}"] = bootstrap_interval(np.mean, own["fine_tuned"], rng=rng)
        ci95[f"margin_{layout}"] = bootstrap_interval(np.mean, margin_N, rng=rng)
        measured[f"margin_lower_end_{layout}"] = ci95[f"margin_{layout}"][0]
        measured[f"largest_p_value_{layout}"] = max(
            p_value(study, head, config.permutations, rng) for study, (head, _) in zip(seeds, found["fine_tuned"])
        )
        for name in ("fine_tuned", "random_start"):
            shares = np.mean([attended_shares(study, name) for study in seeds], axis=0)
            kept, label = (measured, "") if name == "fine_tuned" else (control, f"_{name}")
            kept |= {f"attention_on_{what}{label}_{layout}": float(x) for what, x in zip(SHARES, shares)}
        control |= {f"best_head_{name}_{layout}": float(own[name].mean()) for name in trained.CONTROLS}
        threshold |= {f"largest_p_value_{layout}": "<= 0.01", f"margin_lower_end_{layout}": ">= 0"}
        pictures[layout] = head_means(seeds[0], "fine_tuned"), own
    rows = next(iter(studies.values()))[0].rows
    control |= {name: float(correlation_N.mean()) for name, correlation_N in references(rows).items()}
    claim = Claim(
        id="attention_reads_returns",
        claim="returns weighted by the attention of one head rank the actions as Q* does",
        source="derived here",
        metric="Spearman correlation over actions with Q*(s, .), mean over the tasks that the head was not chosen on "
        "and over seeds; margin over the strongest control; largest permutation p-value of the seeds; shares of all "
        "heads' attention to the context on the query's state and on the action that a head attends to most",
        measured=measured,
        ci95=ci95,
        control=control,
        threshold=threshold,
        config=config.to_dict(),
    )
    return claim, draw(pictures)


def best_head(study, name: str) -> tuple[tuple[int, int], np.ndarray]:
    """((layer, head) that is best on the first half of the tasks, its correlations on the second half)."""
    correlation_NXH = head_correlations(study, name)
    half = len(correlation_NXH) // 2
    means_XH = correlation_NXH[:half].mean(0)
    head = tuple(int(i) for i in np.unravel_index(means_XH.argmax(), means_XH.shape))
    return head, correlation_NXH[half:, *head]


def ranked_heads(study) -> list[tuple[int, int]]:
    """(layer, head) of the fine-tuned model, the one that reads Q best first, by the first half of the tasks."""
    means_XH = head_means(study, "fine_tuned", len(study.rows.queries) // 2)
    order = np.argsort(-means_XH, axis=None)
    return [tuple(int(i) for i in np.unravel_index(index, means_XH.shape)) for index in order]


def head_means(study, name: str, tasks=None) -> np.ndarray:
    return head_correlations(study, name)[:tasks].mean(0)


def head_correlations(study, name: str) -> np.ndarray:
    """(N, X, H) Spearman correlation of each head's values with Q*(s, .)."""
    episodes = study.shuffled if name == "shuffled_context" else study.rows.episodes
    values_XNHA = values_read(study.readings[name].attention, episodes, discount(study.run))
    return np.moveaxis(spearman(values_XNHA, study.rows.true_q()[None, :, None]), 0, 1)


def attended_shares(study, name: str) -> tuple[float, float]:
    """Of all heads' attention to the context: on the query's state; on the action that each head attends to most."""
    weight_XNHET = study.readings[name].attention[:, :, :, :-1]
    episodes, total_XH = study.rows.episodes, weight_XNHET.sum((1, 3, 4))
    here_NET = np.asarray(episodes.observation)[:, :-1, :-1] == study.rows.queries[:, None, None]
    taken_NETA = np.asarray(episodes.action)[:, :-1, :, None] == np.arange(episodes.q.shape[-1])
    on_state_XH = np.einsum("xnhet,net->xh", weight_XNHET, here_NET)
    on_action_XHA = np.einsum("xnhet,neta->xha", weight_XNHET, taken_NETA)
    return float((on_state_XH / total_XH).mean()), float((on_action_XHA.max(-1) / total_XH).mean())


def discount(run) -> float:
    return getattr(run.family, "discount", 1.0)


def values_read(attention_XNHET, episodes, gamma: float) -> np.ndarray:
    """value(a) of each head, (X, N, H, A); an action that the context never shows has that of all."""
    weight_XNHET = attention_XNHET[:, :, :, :-1]
    action_NET, valid_NET = (np.asarray(x)[:, :-1] for x in (episodes.action, episodes.valid))
    reward_NET = np.where(valid_NET, np.asarray(episodes.reward)[:, :-1], 0.0)
    return_NET, total = np.zeros(reward_NET.shape), 0.0
    for t in reversed(range(reward_NET.shape[-1])):
        return_NET[..., t] = total = reward_NET[..., t] + gamma * total
    taken_NETA = valid_NET[..., None] & (action_NET[..., None] == np.arange(episodes.q.shape[-1]))
    weighted = np.einsum("xnhet,neta->xnha", weight_XNHET, taken_NETA * return_NET[..., None])
    mass = np.einsum("xnhet,neta->xnha", weight_XNHET, taken_NETA)
    overall = weighted.sum(-1, keepdims=True) / np.maximum(mass.sum(-1, keepdims=True), 1e-12)
    return np.where(mass > 1e-12, weighted / np.maximum(mass, 1e-12), overall)


def spearman(x, y) -> np.ndarray:
    """Rank correlation along the last axis, ties at their mean rank; 0 where one of the two is constant."""
    return (unit_ranks(x) * unit_ranks(y)).sum(-1)


def unit_ranks(x) -> np.ndarray:
    """Centred ranks along the last axis, of length 1, or 0 where all are tied."""
    ranks = trained.centred(rankdata(x, axis=-1))
    length = np.linalg.norm(ranks, axis=-1, keepdims=True)
    return np.divide(ranks, length, out=np.zeros_like(ranks), where=length > 0)


def p_value(study, head: tuple[int, int], permutations: int, rng) -> float:
    """Share of deals of the second half's readings to other tasks that correlate at least as well."""
    layer, number = head
    half = len(study.rows.queries) // 2
    attention = study.readings["fine_tuned"].attention[layer : layer + 1, :, number : number + 1]
    values_NA = values_read(attention, study.rows.episodes, discount(study.run))[0, :, 0]
    x, y = unit_ranks(values_NA[half:]), unit_ranks(study.rows.true_q()[half:])
    dealt = [(x[rng.permutation(len(x))] * y).sum(-1).mean() for _ in range(permutations)]
    return float((1 + np.sum(np.array(dealt) >= (x * y).sum(-1).mean())) / (1 + permutations))


def references(rows) -> dict[str, np.ndarray]:
    """Correlations that need no model, (N,): of all steps alike, and of those at the query's state alike."""
    state_NET = np.asarray(rows.episodes.observation)[..., :-1]
    here_NET = (state_NET == rows.queries[:, None, None]).astype(float)
    gamma = getattr(rows.family, "discount", 1.0)

    def against_q(weight_NET):
        values_NA = values_read(weight_NET[None, :, None], rows.episodes, gamma)[0, :, 0]
        return spearman(values_NA, rows.true_q())

    return {
        "all_steps_alike": against_q(np.ones_like(here_NET)),
        "steps_at_the_query_state_alike": against_q(here_NET),
        "posterior_mean_planner": spearman(rows.reader_q(), rows.true_q()),
    }


def draw(pictures) -> Figure:
    figure, axes = panels(2 * len(pictures))
    for (maps, bars), (layout, (means_XH, own)) in zip(zip(axes[::2], axes[1::2]), pictures.items()):
        heat_map(maps, means_XH, f"{layout}, seed 0")
        colors = (BLUE, GREY, ORANGE, GREEN)
        names = [name.replace("_", "\n") for name in own]
        means = [correlation_N.mean() for correlation_N in own.values()]
        errors = [1.96 * correlation_N.std() / len(correlation_N) ** 0.5 for correlation_N in own.values()]
        bars.bar(names, means, yerr=errors, color=colors)
        bars.set(ylabel="rank correlation with Q*(s, $\\cdot$)", title=f"best head, {layout}")
    return figure


def heat_map(axis, means_XH, title: str) -> None:
    """Rank correlation of every head, with its number written into its cell."""
    limit = max(abs(means_XH.min()), abs(means_XH.max()), 1e-9)
    axis.imshow(means_XH, cmap="RdBu_r", vmin=-limit, vmax=limit, aspect="auto")
    for layer, head in np.ndindex(means_XH.shape):
        strong = abs(means_XH[layer, head]) > 0.6 * limit
        axis.text(head, layer, f"{means_XH[layer, head]:.2f}", ha="center", va="center", color="w" if strong else "k")
    layers, heads = map(range, means_XH.shape)
    axis.set(xlabel="head", ylabel="layer", title=title, xticks=heads, yticks=layers)
    axis.grid(False)
