"""The task and the query may change between training and test; the features' scale may not."""

import jax
import numpy as np
from matplotlib.figure import Figure

from icdm.intervals import mean_interval
from icdm.models.linear_attention import LinearAttention, regression_prediction
from theory.book import Book
from theory.figures import BLUE, GREEN, RED, panels
from theory.ledger import Claim
from theory.linear import laws
from theory.linear.closed_forms import check_lengths, optimum, squared_error
from theory.linear.prompts import simulated_errors


def check(config) -> tuple[Claim, Figure]:
    check_lengths(config.dimension, config.length)
    trained = laws.gaussian(laws.spectrum(config.dimension, config.condition))
    unit = laws.gaussian(np.eye(config.dimension))
    u = optimum(trained, unit.second, config.length)
    task_shifts = {name: (trained, law, trained) for name, law in shifted_tasks(config).items()}
    query_shifts = {name: (trained, unit, law) for name, law in shifted_queries(config).items()}
    rescaled = {f"features x {c:g}": scaled(trained, c) for c in config.scales}
    feature_shifts = {name: (law, unit, law) for name, law in rescaled.items()}
    rows = {"none": (trained, unit, trained), **task_shifts, **query_shifts, **feature_shifts}
    results = {name: measure(config, u, i, *row) for i, (name, row) in enumerate(rows.items())}

    worst = max((results[name] for name in (*task_shifts, *query_shifts)), key=lambda result: result["relative"])
    book = Book(config)
    book.enter("worst_relative_error", worst["relative"], worst["interval"], at_most=0.1)
    book.enter("largest_z", max(abs(r["z"]) for r in results.values()), at_most=4)
    book.enter("scaling_deviation", scaling_deviation(config, u), at_most=1e-12)
    book.control("relative_error_without_shift", results["none"]["relative"])
    for name in feature_shifts:
        book.control(f"relative_error_{name.replace(' ', '_')}", results[name]["relative"])
    claim = book.close(
        id="shift",
        claim="shifts of task and query are tolerated; features scaled by c scale predictions by c^2",
        source="Zhang et al., JMLR 2024, section 4.3 (task, query and covariate shift)",
        metric="largest error relative to E[y^2] under any task or query shift; largest |z| of simulated "
        "against exact shifted error; largest relative deviation of prediction(c x) from c^2 prediction(x), "
        "labels kept",
    )
    colors = {
        **dict.fromkeys(task_shifts, BLUE),
        **dict.fromkeys(query_shifts, GREEN),
        **dict.fromkeys(feature_shifts, RED),
    }
    return claim, draw(results, colors)


def shifted_tasks(config) -> dict[str, laws.Law]:
    """Finite laws of equal size, so that one compiled program serves them all."""
    d, rng = config.dimension, np.random.default_rng(config.seed)
    signs = np.array(np.meshgrid(*[[-1.0, 1.0]] * d)).reshape(d, -1).T
    return {
        "task x 3": laws.gaussian(9 * np.eye(d)),
        "task: signs": laws.uniform_over(np.resize(signs, (512, d))),
        "task: one direction": laws.uniform_over(np.resize(3 * np.outer([1, -1], np.eye(d)[-1]), (512, d))),
        "task: heavy tails": laws.uniform_over(rng.standard_t(3, (512, d))),
    }


def shifted_queries(config) -> dict[str, laws.Law]:
    d = config.dimension
    return {
        "query x 3": laws.gaussian(9 * laws.spectrum(d, config.condition)),
        "query: isotropic": laws.gaussian(np.eye(d)),
        "query: one direction": laws.uniform_over(np.eye(d)[-1:]),
    }


def scaled(law: laws.Gaussian, factor: float) -> laws.Gaussian:
    return laws.Gaussian(factor * law.root)


def measure(config, u, i: int, features, tasks, query) -> dict:
    """Simulated error over E[y_q^2] with its interval, and z against the exact shifted error."""
    key = jax.random.fold_in(jax.random.key(config.seed), i)
    errors = simulated_errors(features, tasks, u, config.length, config.prompts, key, query=query)
    exact = sum(squared_error(features, tasks.second, u, config.length, query_second=query.second))
    power = float(np.trace(query.second @ tasks.second))
    mean, interval = mean_interval(errors / power)
    se = errors.std(ddof=1) / np.sqrt(len(errors))
    return {
        "relative": mean,
        "interval": interval,
        "exact": exact / power,
        "z": float((errors.mean() - exact) / se),
    }


def scaling_deviation(config, u) -> float:
    """max |f(c x, y, c x_q) / (c^2 f(x, y, x_q)) - 1| of the attention layer itself, float64."""
    rng, d = np.random.default_rng(config.seed), config.dimension
    x, y, query = rng.normal(size=(config.length, d)), rng.normal(size=config.length), rng.normal(size=d)
    layer = LinearAttention(np.diag([0.0] * d + [1.0]), np.pad(u.T, ((0, 1), (0, 1))))
    with jax.enable_x64(True):
        base = float(regression_prediction(layer, x, y, query))
        return max(
            abs(float(regression_prediction(layer, c * x, y, c * query)) / (c**2 * base) - 1) for c in config.scales
        )


def draw(results, colors) -> Figure:
    figure, (axis,) = panels(height=3.4)
    figure.set_figwidth(6.0)
    names = list(results)[::-1]
    for row, name in enumerate(names):
        result = results[name]
        axis.barh(row, result["relative"], color=colors.get(name, "#777777"), height=0.6)
        axis.plot(result["exact"], row, "k|", markersize=12)
    axis.plot([], [], "k|", markersize=10, label="exact")
    for label, color in (("task shift", BLUE), ("query shift", GREEN), ("feature shift", RED)):
        axis.barh(0, 0, color=color, label=label)
    axis.set_xscale("log")
    axis.set_yticks(range(len(names)), names)
    axis.set(xlabel="squared error / E[y$^2$]", title="Task and query may shift, the features' scale may not")
    axis.legend(loc="upper right")
    return figure
