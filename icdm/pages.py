"""Self-contained HTML pages and the pictures inside them."""

import base64
import io
import pathlib
from collections.abc import Sequence
from typing import Any

import jinja2
import matplotlib
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from icdm.files import whole, write_text

matplotlib.use("Agg")


def render(path: pathlib.Path, package: str, template: str, **content: Any) -> None:
    """Writes a page from a template of a package's folder `templates`; what is put into it is escaped."""
    environment = jinja2.Environment(loader=jinja2.PackageLoader(package), autoescape=True)
    write_text(path, environment.get_template(template).render(**content))


def save(directory: pathlib.Path, name: str, figure: Figure) -> str:
    """Saves NAME.png and NAME.pdf, and closes the figure; returns the picture as the source of an image in a page."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=160)
    with whole(directory / f"{name}.pdf") as fresh:
        figure.savefig(fresh, format="pdf")
    plt.close(figure)
    with whole(directory / f"{name}.png") as fresh:
        fresh.write_bytes(buffer.getvalue())
    return as_source(buffer.getvalue())


def as_source(png: bytes) -> str:
    """A picture as the source of an image in a page."""
    return "data:image/png;base64," + base64.b64encode(png).decode()


def gap_axis(axes: Axes, ends: Sequence[float]) -> None:
    """The x axis of gaps in %, from 0 to that of random actions at least, and to these ends of intervals.

    It is linear up to 1 %, then logarithmic, so that good policies can be told apart.
    """
    lowest, highest = min(-0.15, 1.1 * min(ends)), 1.3 * max(100, *ends)
    axes.set_xscale("symlog", linthresh=1.0, linscale=0.6)
    ticks = [x for x in (-100, -10, -1, 0, 1, 3, 10, 30, 100, 300, 1000) if lowest <= x <= highest]
    axes.set_xticks(ticks, [str(x) for x in ticks])
    axes.minorticks_off()
    axes.set_xlim(lowest, highest)
