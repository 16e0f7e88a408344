"""Q*(s, a) can be read off the residual stream by a linear probe, layer by layer.

For each stream at the query (the embedding, then after every layer) a ridge regression on the standardised stream
predicts Q*(s, .) of the task, fitted on one half of the tasks and scored on the other: R2 against the mean over the
first half, where the strength of the ridge is chosen too. The control target is Q*(s, .) of another task at the same
query: a probe's R2 for it owes nothing to the context, and R2 less the control's is the probe's selectivity. The
perfect reader's R2 is that of a regression on the posterior-mean planner's Q(s, .) in the stream's place. The last
stream, chosen beforehand, decides. Q* less its mean over actions, to which training is limited, is probed beside it.
"""

import numpy as np
from matplotlib.figure import Figure

from theory.book import Book
from theory.circuits import trained
from theory.circuits.probes import difference, of_another_task, r_squared, squares
from theory.circuits.trained import centred
from theory.figures import BLUE, CYCLE, GREY, panels
from theory.ledger import Claim


def check(config) -> tuple[Claim, Figure]:
    book, curves = Book(config), {}
    studies = trained.studies(config)
    for layout, seeds in studies.items():
        rows = seeds[0].rows
        target = rows.true_q()
        other = of_another_task(rows, target)
        found = {name: probes(seeds, name, target, config.ridges) for name in seeds[0].readings}
        other_task = probes(seeds, "fine_tuned", other, config.ridges)
        reader_NQ2 = squares(rows.reader_q(), target, config.ridges)[:, None]
        differences_NQ2 = probes(seeds, "fine_tuned", centred(target), config.ridges)[-1]
        reader_differences_NQ2 = squares(rows.reader_q(), centred(target), config.ridges)[:, None]
        last = {name: errors[-1] for name, errors in found.items()}
        rival = max(seeds[0].controls, key=lambda name: r_squared(last[name]))
        book.measure(f"r2_q_{layout}", r_squared, last["fine_tuned"])
        book.measure(f"selectivity_{layout}", difference, last["fine_tuned"], other_task[-1], at_least=0.3)
        book.measure(f"share_of_reader_{layout}", share, last["fine_tuned"], reader_NQ2, at_least=0.8)
        book.measure(f"margin_{layout}", difference, last["fine_tuned"], last[rival], at_least=0)
        book.measure(f"r2_differences_{layout}", r_squared, differences_NQ2)
        book.measure(f"share_of_reader_differences_{layout}", share, differences_NQ2, reader_differences_NQ2)
        for name in seeds[0].controls:
            book.control(f"r2_q_{name}_{layout}", r_squared(last[name]))
        book.control(f"r2_of_another_task_{layout}", r_squared(other_task[-1]))
        book.control(f"r2_of_the_perfect_reader_{layout}", r_squared(reader_NQ2))
        curves[layout] = found | {"another_task": other_task, "perfect_reader": [reader_NQ2] * len(other_task)}
    claim = book.close(
        id="q_is_decodable",
        claim="a linear probe of the last residual stream at the query finds Q*(s, a) on tasks it was not fitted on",
        source="Hewitt and Liang, EMNLP 2019 (selectivity)",
        metric="R2 of Q*(s, .) on unseen tasks, mean over seeds; selectivity: less the R2 of another task's Q*; share "
        "of the perfect reader's R2; margin over the strongest control; differences: Q* less its mean over actions",
    )
    return claim, draw(curves)


def probes(seeds, name: str, target_NA, ridges) -> list[np.ndarray]:
    """For every stream, the squared errors of Q seeds' probes, (N / 2, Q, 2)."""
    streams = range(seeds[0].readings[name].residual.shape[0])
    return [
        np.stack([squares(study.readings[name].residual[x], target_NA, ridges) for study in seeds], axis=1)
        for x in streams
    ]


def share(ours_NQ2, theirs_NQ2) -> float:
    return r_squared(ours_NQ2) / r_squared(theirs_NQ2)


def draw(curves) -> Figure:
    figure, axes = panels(len(curves), height=3.4)
    for axis, (layout, found) in zip(axes, curves.items()):
        for (name, errors), color in zip(found.items(), (BLUE, *CYCLE[1:5], "black")):
            points = [r_squared(squares_NQ2) for squares_NQ2 in errors]
            style = {"fine_tuned": "o-", "perfect_reader": "--"}.get(name, "o:")
            axis.plot(points, style, color=GREY if name == "another_task" else color, label=name.replace("_", " "))
        names = ["embedding", *(f"layer {x}" for x in range(len(points) - 1))]
        axis.set(xticks=range(len(points)), xticklabels=names, ylabel="R$^2$ of Q*(s, a), unseen tasks", title=layout)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3 * len(axes), fontsize=7)
    return figure
