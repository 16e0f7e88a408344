"""The style of all figures of the ledger."""

import matplotlib
import matplotlib.pyplot as plt

matplotlib.use("Agg")

BLUE, ORANGE, GREEN, RED, PURPLE, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#9467BD", "#777777"
CYCLE = [BLUE, ORANGE, GREEN, RED, PURPLE, GREY]

plt.rcParams.update(
    {
        "figure.dpi": 150,
        "font.size": 9,
        "axes.titlesize": 10,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.alpha": 0.25,
        "grid.linewidth": 0.6,
        "axes.prop_cycle": plt.cycler(color=CYCLE),
        "legend.frameon": False,
        "legend.fontsize": 8,
        "lines.linewidth": 1.4,
        "lines.markersize": 4,
        "pdf.fonttype": 42,
    }
)


def panels(n: int = 1, height: float = 3.0):
    """A figure of n panels side by side; returns (figure, list of axes)."""
    figure, axes = plt.subplots(1, n, figsize=(3.7 * n, height), layout="constrained", squeeze=False)
    return figure, list(axes[0])
