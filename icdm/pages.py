"""Self-contained HTML pages and the pictures inside them."""

import base64
import io
import pathlib
from typing import Any

import jinja2
import matplotlib
import matplotlib.pyplot as plt
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
