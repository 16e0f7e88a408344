"""The logits of a transformer fine-tuned on Boltzmann labels are Q-functions, as far as its context determines them.

Logit differences z(a) - z(a') are regressed, through the origin and over all pairs of actions, on (Q(a) - Q(a')) / tau;
this is the regression of centred logits on centred Q / tau. Q is the task's own Q*, or that of the posterior-mean
planner that has read the same steps, the current episode's included. All decisions of the episode that follows 1 to K
context episodes count; those of its first and its last step are also reported apart. Intervals are over tasks.

Cross-entropy is least at log E[softmax(Q*/tau) | context], which is not quite linear in either. The share of the
planner's Q that this minimiser explains is computed from posterior draws and reported beside the model's. (Where the
labels are the planner's own, `fine_tune.teacher`, the minimiser is the planner.)
"""

import numpy as np
from matplotlib.figure import Figure

from theory.book import Book
from theory.circuits import trained
from theory.circuits.decisions import logits_of_every_episode
from theory.circuits.regressions import pair_products, r_squared, slope
from theory.circuits.trained import centred
from theory.figures import BLUE, CYCLE, GREY, ORANGE, panels
from theory.ledger import Claim


def check(config) -> tuple[Claim, Figure]:
    book, curves = Book(config), {}
    studies = trained.studies(config)
    for layout, seeds in studies.items():
        said = {name: [logits_of_every_episode(study, name) for study in seeds] for name in seeds[0].readings}
        curves[layout] = {
            (against, name): products(seeds[0], logits, against)
            for against in ("reader", "true")
            for name, logits in said.items()
        }
        reader, true = (curves[layout][against, "fine_tuned"] for against in ("reader", "true"))
        first, last = (products(seeds[0], said["fine_tuned"], "reader", steps)[:, -1] for steps in ([0], [-1]))
        book.measure(f"r2_reader_{layout}", r_squared, reader[:, -1], at_least=0.9)
        book.measure(f"slope_reader_{layout}", slope, reader[:, -1])
        book.measure(f"r2_true_{layout}", r_squared, true[:, -1])
        book.measure(f"slope_true_{layout}", slope, true[:, -1])
        book.measure(f"r2_reader_first_step_{layout}", r_squared, first)
        book.measure(f"r2_reader_last_step_{layout}", r_squared, last)
        book.measure(f"rise_of_r2_reader_{layout}", rise, reader[:, [0, -1]], at_least=0)
        book.measure(f"rise_of_r2_true_{layout}", rise, true[:, [0, -1]], at_least=0)
        for name in seeds[0].controls:
            book.control(f"r2_reader_{name}_{layout}", r_squared(curves[layout]["reader", name][:, -1]))
    study = next(iter(studies.values()))[0]
    q_reader = study.rows.reader_q()
    if study.run.settings.teacher == "oracle":
        minimiser, tau = exact_minimiser(study, config.draws), study.temperature
        book.control("r2_reader_of_the_exact_minimiser", r_squared(pair_products(minimiser, q_reader / tau)[:, None]))
    book.control("r2_true_of_the_reader", r_squared(pair_products(q_reader, study.rows.true_q())[:, None]))
    claim = book.close(
        id="logits_are_q",
        claim="action-logit differences of the fine-tuned transformer are Q differences over the temperature, as far "
        "as the context determines them",
        source="derived here; Lee et al., NeurIPS 2023 (the method)",
        metric="R2 and slope of logit differences on Q differences / temperature, over the decisions of the episode "
        "that follows all context episodes, mean over seeds, against the posterior-mean planner (reader) and the "
        "task's Q* (true); rise: from one context episode to all",
    )
    return claim, draw(studies, curves)


def products(study, logits: list[np.ndarray], against: str, steps=None) -> np.ndarray:
    """Sums of products over (some) steps of the episode after 1, ..., K others, (N, K, Q, 3), for Q seeds' logits."""
    rows, tau = study.rows, study.temperature
    _, n_episodes, n_steps = rows.episodes.action.shape
    q_of = rows.reader_q if against == "reader" else rows.true_q

    def of_episode(e):
        q_NTA = np.stack([q_of(e, t % n_steps) for t in steps or range(n_steps)], axis=1) / tau
        valid_NT = np.asarray(rows.episodes.valid)[:, e, steps or slice(None)]
        of_seeds = (z_NETA[:, e, steps or slice(None)] for z_NETA in logits)
        return np.stack([(pair_products(z, q_NTA) * valid_NT[..., None]).sum(1) for z in of_seeds], axis=1)

    return np.stack([of_episode(e) for e in range(1, n_episodes)], axis=1)


def rise(sums_N2Q3: np.ndarray) -> float:
    return r_squared(sums_N2Q3[:, 1]) - r_squared(sums_N2Q3[:, 0])


def exact_minimiser(study, draws: int) -> np.ndarray:
    """log E[softmax(Q*/tau) | context] over posterior draws, (N, A)."""
    weight = 0.0
    for seed in range(draws):
        q = study.rows.reader_q(planner="posterior_sampling", seed=seed) / study.temperature
        weight = weight + np.exp(q - np.logaddexp.reduce(q, axis=-1, keepdims=True)) / draws
    return np.log(weight)


def draw(studies, curves) -> Figure:
    figure, axes = panels(1 + len(studies))
    layout, seeds = next(iter(studies.items()))
    study = seeds[0]
    tau = study.temperature
    x = centred(study.rows.reader_q()).ravel()
    y = tau * centred(study.readings["fine_tuned"].logits[:, -1, 0]).ravel()
    axes[0].plot(x, y, ".", color=BLUE, alpha=0.25, markersize=3, markeredgewidth=0)
    ends = [x.min(), x.max()]
    axes[0].plot(ends, ends, color=GREY, linewidth=0.8, label="equal")
    axes[0].set(
        xlabel="posterior-mean planner's Q less its mean",
        ylabel="$\\tau$ (logit - mean logit)",
        title=f"first decision, {layout}, seed 0",
    )
    axes[0].legend(loc="upper left")
    for axis, (layout, found) in zip(axes[1:], curves.items()):
        for (against, name), color in zip(found, (BLUE, *CYCLE[2:5], ORANGE)):
            if against == "true" and name != "fine_tuned":
                continue
            sums = found[against, name]
            points = [r_squared(sums[:, k]) for k in range(sums.shape[1])]
            label = f"against {'the reader' if against == 'reader' else 'Q*'}" if name == "fine_tuned" else name
            style = "o-" if name == "fine_tuned" else ":"
            axis.plot(range(1, len(points) + 1), points, style, color=color, label=label.replace("_", " "))
        axis.axhline(0.9, color="black", linewidth=0.6)
        axis.set(xlabel="context episodes", ylabel="R$^2$, all decisions of the next", title=layout, ylim=(-0.03, 1.03))
    figure.legend(*axes[-1].get_legend_handles_labels(), loc="outside lower center", ncols=5)
    return figure
