"""The book of a claim: values, intervals, limits and controls, each entered on one line."""

import pathlib

import numpy as np
import pytest
from ml_collections import config_dict

from icdm.intervals import bootstrap_interval, mean_interval
from theory import ledger
from theory.book import Book
from theory.wording import in_words

RESULTS = pathlib.Path(ledger.__file__).parent / "results"


def empty_book(**options):
    return Book(config_dict.create(seed=3), **options)


def closed(book):
    return book.close(id="x", claim="c", source="s", metric="m")


@pytest.fixture
def sample():
    return np.random.default_rng(0).normal(size=50)


def test_a_measured_number_has_the_bootstrap_interval_of_its_statistic(sample):
    book = empty_book(repeats=40)
    book.measure("mean", np.mean, sample, at_least=-1)
    other = sample**2
    book.measure("ratio", lambda x, y: x.sum() / y.sum(), sample, other)
    rng = np.random.default_rng(3)  # one generator, drawn from line after line
    expected = {
        "mean": bootstrap_interval(np.mean, sample, rng=rng, repeats=40),
        "ratio": bootstrap_interval(lambda x, y: x.sum() / y.sum(), sample, other, rng=rng, repeats=40),
    }
    claim = closed(book)
    assert claim.measured == {"mean": sample.mean(), "ratio": sample.sum() / other.sum()}
    assert claim.ci95 == expected and claim.threshold == {"mean": ">= -1"}
    assert claim.config == {"seed": 3} and claim.control == {} and claim.holds


def test_a_generator_that_is_given_goes_on_where_it_was(sample):
    rng, twin = np.random.default_rng(5), np.random.default_rng(5)
    rng.random(), twin.random()
    book = empty_book(rng=rng)
    book.measure("median", np.median, sample)
    assert book.ci95["median"] == bootstrap_interval(np.median, sample, rng=twin)
    assert rng.random() == twin.random()


def test_a_number_from_elsewhere_brings_its_interval_or_none(sample):
    book = empty_book()
    book.enter("mean", *mean_interval(sample))
    book.enter("count", len(sample), at_least=50)
    book.enter("largest", np.float32(0.5))
    claim = closed(book)
    assert list(claim.measured) == ["mean", "count", "largest"] and list(claim.ci95) == ["mean"]
    assert claim.ci95["mean"] == mean_interval(sample)[1]
    assert isinstance(claim.measured["count"], int), "a count is printed in full"
    assert type(claim.measured["largest"]) is float, "what JSON can hold"


def test_the_whole_interval_decides(sample):
    book = empty_book()
    book.measure("margin", np.mean, sample + 0.1, at_least=0)
    claim = closed(book)
    assert claim.ci95["margin"][0] < 0 < claim.measured["margin"]
    assert claim.verdict == "undecided" and not claim.holds


@pytest.mark.parametrize(
    "limit, text, holds",
    [
        (dict(at_most=1e-6), "<= 1e-6", False),
        (dict(at_most=1e-12), "<= 1e-12", False),
        (dict(at_most=1.000001), "<= 1.000001", True),
        (dict(at_least=0), ">= 0", True),
        (dict(between=(0.97, 1.03)), "0.97 .. 1.03", True),
        (dict(between=(-1.02, -0.98)), "-1.02 .. -0.98", False),
    ],
)
def test_limits_as_they_are_written_in_the_ledger(limit, text, holds):
    book = empty_book()
    book.enter("value", 1.0, **limit)
    claim = closed(book)
    assert claim.threshold == {"value": text} and claim.holds is holds


def test_controls_decide_nothing():
    book = empty_book()
    book.enter("error", 0.0, at_most=0.1)
    book.control("error_of_the_wrong_form", np.float64(2.0))
    claim = closed(book)
    assert claim.control == {"error_of_the_wrong_form": 2.0} and list(claim.measured) == ["error"] and claim.holds


def test_numbers_are_named_in_words():
    assert in_words("share_of_reader_transition") == "share of the perfect reader's R2 for Q*, transition layout"
    assert in_words("share_left_1_layer_2") == (
        "share of the slope that is left, reward 1 steps away, cut in layer 2 alone"
    )
    assert in_words("a_key_of_tomorrow_interleaved") == "a key of tomorrow, interleaved layout"
    for claim in ledger.read(RESULTS / "planning.json"):
        for key in (claim.measured | claim.control).keys() - {"tasks", "tasks_whose_best_action_changes"}:
            assert in_words(key) != key.replace("_", " "), key
