"""The layer's error is exactly the sum of training-length bias and in-context estimation error."""

import itertools

import jax
import numpy as np
from matplotlib.figure import Figure

from icdm.intervals import share_interval
from theory.book import Book
from theory.figures import BLUE, GREY, ORANGE, panels
from theory.ledger import Claim
from theory.linear import laws
from theory.linear.closed_forms import (
    check_lengths,
    gamma,
    gaussian_squared_error,
    optimum,
    squared_error,
    upper_bound,
)
from theory.linear.prompts import simulated_errors


def check(config) -> tuple[Claim, Figure]:
    gaussian, general = gaussian_settings(config), general_settings(config)
    simulate_all(config, gaussian + general)
    for setting in gaussian:
        setting["bound"] = upper_bound(setting["features"].second, setting["n"], setting["m"])
    everything = gaussian + general
    z = np.array([z_score(s, s["exact"]) for s in everything])
    z_swapped = np.array([z_score(s, s["lengths_confused"]) for s in gaussian if s["n"] != s["m"]])
    z_wrong = np.array([z_score(s, s["wrong_count"]) for s in gaussian])
    tightness = np.array([s["bound"] / s["exact"] for s in gaussian])
    violations = sum(max(s["exact"], s["mean"] - 3 * s["se"]) > s["bound"] for s in gaussian)

    book = Book(config)
    book.enter("share_within_3_se", *share_interval(int((np.abs(z) <= 3).sum()), len(z)), at_least=0.95)
    book.enter("settings", len(z), at_least=63)
    book.enter("bound_violations", int(violations), at_most=0)
    book.enter("largest_z", np.abs(z).max())
    book.measure("tightness_median", np.median, tightness)
    book.enter("tightness_least", tightness.min())
    book.enter("tightness_most", tightness.max())
    swapped, wrong = (np.mean(np.abs(other) <= 3) for other in (z_swapped, z_wrong))
    book.control("share_within_3_se_if_test_length_is_taken_for_training_length", swapped)
    book.control("share_within_3_se_if_N_replaces_N_minus_1", wrong)
    claim = book.close(
        id="two_errors",
        claim="MSE(N, M) = training-length bias(N) + in-context estimation error(N) / M, exactly",
        source="derived here; agrees with Zhang et al., Thm 4.2; bound: arXiv 2605.09009, eq. 6",
        metric="share of settings whose simulated error is within 3 standard errors of the closed form; "
        "violations of the published upper bound (exact error, or simulated error less 3 standard errors, "
        "above it); tightness = bound / error",
    )
    return claim, draw(gaussian, general, z)


def gaussian_settings(config) -> list[dict]:
    """d x condition number x (N, M), with w ~ N(0, I); the exact error and two common wrong forms."""
    settings = []
    for d, condition, (n, m) in itertools.product(config.dimensions, config.conditions, config.lengths):
        check_lengths(d, n, m)
        covariance = laws.spectrum(d, condition)
        u = np.linalg.inv(gamma(covariance, n))
        exact = gaussian_squared_error(covariance, n, m)
        settings.append(
            {
                "features": laws.gaussian(covariance),
                "tasks": laws.gaussian(np.eye(d)),
                "noise": 0.0,
                "n": n,
                "m": m,
                "u": u,
                "exact": exact,
                "lengths_confused": gaussian_squared_error(covariance, n, n),
                "wrong_count": exact + float(np.trace(covariance @ covariance @ covariance @ u @ u)) / m,
            }
        )
    return settings


def general_settings(config) -> list[dict]:
    """One-hot and lopsided finite features, an anisotropic task prior, with and without label noise."""
    rng = np.random.default_rng(config.seed)
    tables = {
        "one-hot": laws.one_hot(rng.dirichlet(np.full(6, 2.0))),
        "simplex": laws.uniform_over(rng.dirichlet(np.ones(6), 6)),
    }
    settings = []
    for features, noise, (n, m) in itertools.product(tables.values(), (0.0, 0.5), config.lengths):
        tasks = laws.gaussian(laws.spectrum(6, 9.0))
        u = optimum(features, tasks.second, n, noise)
        exact = sum(squared_error(features, tasks.second, u, m, noise))
        settings.append({"features": features, "tasks": tasks, "noise": noise, "n": n, "m": m, "u": u, "exact": exact})
    return settings


def simulate_all(config, settings: list[dict]) -> None:
    """Adds the simulated mean error and its standard error to every setting."""
    for i, s in enumerate(settings):
        key = jax.random.fold_in(jax.random.key(config.seed), i)
        errors = simulated_errors(s["features"], s["tasks"], s["u"], s["m"], config.prompts, key, s["noise"])
        s["mean"], s["se"] = errors.mean(), errors.std(ddof=1) / np.sqrt(len(errors))


def z_score(setting, exact) -> float:
    return (setting["mean"] - exact) / setting["se"]


def draw(gaussian, general, z) -> Figure:
    figure, (left, right) = panels(2)
    for group, color, label in (
        (gaussian, BLUE, "Gaussian features"),
        (general, ORANGE, "one-hot and simplex"),
    ):
        left.loglog([s["exact"] for s in group], [s["mean"] for s in group], "o", color=color, label=label, alpha=0.7)
    ends = np.array(left.get_xlim())
    left.loglog(ends, ends, color=GREY, linewidth=0.8)
    left.loglog(
        [s["exact"] for s in gaussian],
        [s["bound"] for s in gaussian],
        "_",
        color=GREY,
        label="published bound",
    )
    left.set(xlabel="exact error", ylabel="simulated error", title="Two error terms, exactly")
    left.legend()
    right.hist(z, bins=np.arange(-4, 4.5, 0.5), color=BLUE, alpha=0.7, density=True, label="settings")
    grid = np.linspace(-4, 4, 200)
    right.plot(grid, np.exp(-(grid**2) / 2) / np.sqrt(2 * np.pi), color=GREY, label="N(0, 1)")
    right.set(xlabel="z = (simulated - exact) / standard error", ylabel="density", title="Deviations are noise")
    right.legend()
    return figure
