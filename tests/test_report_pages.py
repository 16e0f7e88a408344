"""The reports of runs, sweeps and claims in a real browser, on a desk and on a phone."""

import shutil

import chromium
import pytest
from ml_collections import ConfigDict
from test_runs import OLD

from experiments import report, sweep_report
from icdm.runs.run import Run
from theory.configs import quick
from theory.verify import verify

WIDTHS = [1280, 390]


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """The report of a run, that of a sweep over horizons with two seeds, and that of one claim."""
    root = tmp_path_factory.mktemp("reports")
    config = ConfigDict(Run.open(OLD).config)
    for name in ("one", "two"):
        shutil.copytree(OLD, root / name)
    report.write(root / "one", Run.open(OLD).results(), config, "energy")
    points, runs = [{"horizon": horizon} for horizon in (2, 5, 10)], [root / "one", root / "two"]
    entries = [sweep_report.pool(point, runs) for point in points]
    (root / "sweep").mkdir()
    results = sweep_report.results_of(entries, {"horizon": [2, 5, 10]}, config, [runs] * 3)
    sweep_report.write(root / "sweep", results, config)
    claims = quick.get_config()
    claims.linear_q.problems = 4
    verify(claims, root / "theory", ["linear_q"])
    return {
        name: root / place / "report.html" for name, place in (("run", "one"), ("sweep", "sweep"), ("theory", "theory"))
    }


@pytest.mark.slow
@pytest.mark.skipif(chromium.CHROMIUM is None, reason="there is no Chromium")
@pytest.mark.parametrize("name", ["run", "sweep", "theory"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_overflows_and_the_console_is_silent(name, scheme, pages, tmp_path):
    with chromium.opened(tmp_path / "profile") as page:
        for width in WIDTHS:
            page.open(pages[name], width, scheme)
            assert page.value("document.documentElement.scrollWidth") <= width
            loaded = "[...document.images].every(image => image.complete && image.naturalWidth > 300)"
            assert page.value("document.images.length") > 0 and page.value(loaded)
            page.screenshot(tmp_path / f"{width}.png")
        assert not page.errors
        dark = page.value("getComputedStyle(document.body).backgroundColor") != "rgb(255, 255, 255)"
        assert dark == (scheme == "dark")


def test_policies_are_explained_sorted_and_in_percent(pages):
    text = pages["run"].read_text()
    assert "the transformer after fine-tuning" in text and "normalized gap, %" in text
    assert text.index(">oracle<") < text.index(">fine tuned<") < text.index(">random<")
    assert "no network" not in text and "http" not in text.split("</style>")[1]
