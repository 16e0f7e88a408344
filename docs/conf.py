"""The documentation: `make docs` builds docs/_build/html, without network; a warning is an error."""

import pathlib
import sys
from typing import Any

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))
from icdm import __version__  # noqa: E402

project, author, release = "icdm", "the icdm authors", __version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.viewcode"]
exclude_patterns = ["_build"]
myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence"]
html_theme, html_title = "furo", "icdm"
html_static_path, html_css_files = ["_static"], ["phone.css"]
html_show_copyright = False
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the signature has them
autodoc_preserve_defaults = True


def as_it_stands(app: Any, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Shows a docstring as it was written: its equations and shapes are plain text."""
    if any(line.strip() for line in lines):
        lines[:] = ["::", "", *(f"   {line}" for line in lines)]


def setup(app: Any) -> None:
    app.connect("autodoc-process-docstring", as_it_stands)
