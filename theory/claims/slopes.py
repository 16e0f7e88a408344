"""The two errors fall as 1/M in the length of the test prompt, and as 1/N^2 in that of training."""

import jax
import numpy as np
from matplotlib.figure import Figure

from icdm.intervals import bootstrap_interval
from theory.book import Book
from theory.figures import BLUE, GREY, ORANGE, panels
from theory.ledger import Claim
from theory.linear import laws
from theory.linear.closed_forms import check_lengths, gaussian_squared_error, optimum, squared_error
from theory.linear.prompts import simulated_errors
from theory.statistics import log_slope


def check(config) -> tuple[Claim, Figure]:
    d = config.dimension
    check_lengths(d, *config.test_lengths, *config.short_lengths)
    covariance = laws.spectrum(d, config.condition)
    long_lengths = [d * ratio for ratio in config.training_lengths_in_d]
    estimation = test_errors(config, covariance, np.linalg.inv(covariance))
    short_trained = test_errors(
        config, covariance, optimum(laws.gaussian(covariance), np.eye(d), config.test_lengths[0])
    )
    bias = bias_errors(config, covariance, long_lengths)
    short_bias = bias_errors(config, covariance, config.short_lengths)

    book = Book(config)
    book.enter("slope_in_M", *fitted(config.test_lengths, estimation, config.seed), between=(-1.02, -0.98))
    book.enter("slope_in_N", *fitted(long_lengths, bias, config.seed), between=(-2.05, -1.95))
    short_m, _ = fitted(config.test_lengths, short_trained, config.seed)
    short_n, _ = fitted(config.short_lengths, short_bias, config.seed)
    book.control("slope_in_M_if_trained_on_short_prompts", short_m)
    book.control("slope_in_N_for_short_N", short_n)
    claim = book.close(
        id="slopes",
        claim="in-context estimation error falls as 1/M; training-length bias as 1/N^2 once N >> d",
        source="Zhang et al., Cor. 4.3; arXiv 2605.09009, eq. 6; exact forms derived here",
        metric="slope of the log simulated error in log M (N infinite) and in log N (M infinite, N >= 40 d)",
    )
    lengths = sorted({*config.short_lengths, *long_lengths})
    return claim, draw(config, covariance, estimation, short_trained, lengths, bias_errors(config, covariance, lengths))


def test_errors(config, covariance, u) -> np.ndarray:
    """Squared errors of a layer at every test length, (prompts, lengths)."""
    features, tasks = laws.gaussian(covariance), laws.gaussian(np.eye(len(covariance)))
    columns = [
        simulated_errors(features, tasks, u, m, config.prompts, jax.random.key(config.seed + m))
        for m in config.test_lengths
    ]
    return np.stack(columns, axis=1)


def bias_errors(config, covariance, lengths) -> np.ndarray:
    """(x_q^T (U_N Lambda - I) w)^2, the error at an endless test prompt, (prompts, lengths), common draws."""
    rng, d = np.random.default_rng(config.seed), len(covariance)
    query, w = (
        rng.normal(size=(config.prompts, d)) @ np.sqrt(covariance),
        rng.normal(size=(config.prompts, d)),
    )
    features = laws.gaussian(covariance)
    off = [optimum(features, np.eye(d), n) @ covariance - np.eye(d) for n in lengths]
    return np.stack([np.einsum("bi,ij,bj->b", query, o, w) ** 2 for o in off], axis=1)


def fitted(lengths, errors, seed) -> tuple[float, list[float]]:
    """Slope of log mean error against log length, with its bootstrap interval over prompts."""

    def slope(rows):
        return log_slope(lengths, rows.mean(0))

    return slope(errors), bootstrap_interval(slope, errors, rng=np.random.default_rng(seed), repeats=300)


def draw(config, covariance, estimation, short_trained, lengths, bias) -> Figure:
    figure, (left, right) = panels(2)
    m, n = np.array(config.test_lengths), np.array(lengths)
    short = config.test_lengths[0]
    grid = np.geomspace(m[0], m[-1], 60)
    exact = [
        squared_error(laws.gaussian(covariance), np.eye(len(covariance)), np.linalg.inv(covariance), x)[1] for x in grid
    ]
    left.loglog(grid, exact, color=BLUE, label="exact, trained on endless prompts")
    left.loglog(m, estimation.mean(0), "o", color=BLUE)
    left.loglog(
        grid,
        [gaussian_squared_error(covariance, short, x) for x in grid],
        color=ORANGE,
        label=f"exact, N = {short}",
    )
    left.loglog(m, short_trained.mean(0), "s", color=ORANGE)
    left.set(xlabel="test prompt length M", ylabel="squared error", title="Estimation error falls as 1/M")
    left.set_xticks(m, m)
    left.minorticks_off()
    left.legend()
    features, unit = laws.gaussian(covariance), np.eye(len(covariance))
    grid = np.geomspace(n[0], n[-1], 60)
    exact = [squared_error(features, unit, optimum(features, unit, x), np.inf)[0] for x in grid]
    right.loglog(grid, exact, color=BLUE, label="exact bias")
    right.loglog(n, bias.mean(0), "o", color=BLUE, label="simulated")
    right.loglog(grid, exact[-1] * (grid / grid[-1]) ** -2.0, ":", color=GREY, label="slope -2")
    right.set(xlabel="training prompt length N", ylabel="squared error", title="Bias falls as 1/N$^2$ for N >> d")
    right.legend()
    return figure
