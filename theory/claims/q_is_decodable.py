"""Q*(s, a) can be read off the residual stream by a linear probe, layer by layer.

For each stream at the query (the embedding, then after every layer) a ridge regression on the standardised stream predicts Q*(s, .) of
the task, fitted on one half of the tasks and scored on the other: R2 against the mean over the first half. The
control target is Q*(s, .) of another task at the same query: what a probe finds of it says nothing of the context, and R2
less the control's is the probe's selectivity. The perfect reader's R2 is that of a regression on the
posterior-mean planner's Q(s, .) in the stream's place. The decision is on the last stream, chosen beforehand.
"""

import numpy as np
from matplotlib.figure import Figure

from theory import trained
from theory.figures import BLUE, CYCLE, GREY, panels
from theory.ledger import Claim
from theory.statistics import bootstrap_interval

NAMES = ("fine_tuned", *trained.CONTROLS)


def check(config) -> tuple[Claim, Figure]:
    rng = np.random.default_rng(config.seed)
    measured, ci95, control, threshold, curves = {}, {}, {}, {}, {}
    studies = trained.studies(config)
    for layout, seeds in studies.items():
        rows = seeds[0].rows
        target, other = rows.true_q(), another_task(rows)
        found = {name: probes(seeds, name, target, config.ridge) for name in NAMES}
        other_task = probes(seeds, "fine_tuned", other, config.ridge)
        reader_NR2 = squares(rows.reader_q(), target, config.ridge)[:, None]
        last = {name: errors[-1] for name, errors in found.items()}
        rival = max(trained.CONTROLS, key=lambda name: r_squared(last[name]))
        numbers = {
            f"r2_{layout}": (r_squared, (last["fine_tuned"],)),
            f"selectivity_{layout}": (difference, (last["fine_tuned"], other_task[-1])),
            f"share_of_reader_{layout}": (share, (last["fine_tuned"], reader_NR2)),
            f"margin_{layout}": (difference, (last["fine_tuned"], last[rival])),
        }
        for name, (statistic, samples) in numbers.items():
            measured[name] = statistic(*samples)
            ci95[name] = bootstrap_interval(statistic, *samples, rng=rng)
        measured[f"margin_lower_end_{layout}"] = ci95[f"margin_{layout}"][0]
        control |= {f"r2_{name}_{layout}": r_squared(last[name]) for name in trained.CONTROLS}
        control[f"r2_of_another_task_{layout}"] = r_squared(other_task[-1])
        control[f"r2_of_the_perfect_reader_{layout}"] = r_squared(reader_NR2)
        threshold |= {
            f"selectivity_{layout}": ">= 0.3",
            f"share_of_reader_{layout}": ">= 0.8",
            f"margin_lower_end_{layout}": ">= 0",
        }
        curves[layout] = found | {"another_task": other_task, "perfect_reader": [reader_NR2] * len(other_task)}
    claim = Claim(
        id="q_is_decodable",
        claim="a linear probe of the last residual stream at the query tells Q*(s, a) of tasks it was not fitted on",
        source="Hewitt and Liang, EMNLP 2019 (selectivity)",
        metric="R2 of Q*(s, .) on unseen tasks, mean over seeds; selectivity: less the R2 of another task's Q*; share of the "
        "perfect reader's R2; margin over the strongest control",
        measured=measured,
        ci95=ci95,
        control=control,
        threshold=threshold,
        config=config.to_dict(),
    )
    return claim, draw(curves)


def another_task(rows) -> np.ndarray:
    """Q*_0(s, .) of the next row's task that is asked about the same state s, (N, A)."""
    target, other = rows.true_q(), np.empty(rows.true_q().shape)
    for state in np.unique(rows.queries):
        here = np.flatnonzero(rows.queries == state)
        other[here] = target[np.roll(here, 1)]
    return other


def probes(seeds, name: str, target_NA, ridge: float) -> list[np.ndarray]:
    """For every stream, the squared errors of R seeds' probes, (N / 2, R, 2)."""
    streams = range(seeds[0].readings[name].residual.shape[0])
    return [
        np.stack([squares(s.readings[name].residual[x], target_NA, ridge) for s in seeds], axis=1) for x in streams
    ]


def squares(stream_ND, target_NA, ridge: float) -> np.ndarray:
    """Of each task of the second half: squared error of the probe fitted on the first, and of the first's mean, (N/2, 2)."""
    half = len(stream_ND) // 2
    x = np.asarray(stream_ND, np.float64)
    spread_D = x[:half].std(0)
    x = (x - x[:half].mean(0)) / np.where(spread_D > 1e-6, spread_D, 1.0)
    y = target_NA - target_NA[:half].mean(0)
    gram = x[:half].T @ x[:half] + ridge * half * np.eye(x.shape[1])
    weights_DA = np.linalg.solve(gram, x[:half].T @ y[:half])
    return np.stack([((y - x @ weights_DA) ** 2).sum(-1), (y**2).sum(-1)], axis=-1)[half:]


def r_squared(squares_NR2) -> float:
    error, spread = np.moveaxis(squares_NR2.sum(0), -1, 0)
    return float((1 - error / spread).mean())


def difference(ours_NR2, theirs_NR2) -> float:
    return r_squared(ours_NR2) - r_squared(theirs_NR2)


def share(ours_NR2, theirs_NR2) -> float:
    return r_squared(ours_NR2) / r_squared(theirs_NR2)


def draw(curves) -> Figure:
    figure, axes = panels(len(curves), height=3.2)
    for axis, (layout, found) in zip(axes, curves.items()):
        for (name, errors), color in zip(found.items(), (BLUE, *CYCLE[1:5], "black")):
            points = [r_squared(squares_NR2) for squares_NR2 in errors]
            style = {"fine_tuned": "o-", "perfect_reader": "--"}.get(name, "o:")
            axis.plot(points, style, color=GREY if name == "another_task" else color, label=name.replace("_", " "))
        names = ["embedding", *(f"layer {x}" for x in range(len(points) - 1))]
        axis.set(xticks=range(len(points)), xticklabels=names, ylabel="R$^2$ of Q*(s, a), unseen tasks", title=layout)
        axis.legend(fontsize=7)
    return figure
