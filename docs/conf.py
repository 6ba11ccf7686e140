"""The documentation as a site: `make docs`. It needs no network."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parent
ROOT = DOCS.parent

project = "isofire"
author = "The isofire maintainers"
copyright = f"2026, {author}"
release = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
source_suffix = {".md": "markdown"}
root_doc = "index"
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"isofire {release}"
html_static_path = ["static"]
html_css_files = ["site.css"]

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
myst_url_schemes = ("http", "https", "mailto")

# docstrings write code in single backticks
default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints = "none"
napoleon_google_docstring = False
napoleon_use_rtype = False
# the same name may be reached by several modules
suppress_warnings = ["ref.python", "autodoc.duplicate_object", "docutils", "myst.xref_missing", "myst.header"]


def _name_files_of_the_repository(app: Any, docname: str, source: list[str]) -> None:
    """Links to what is no page of the site, such as stored runs, become the name of the file."""
    folder = (DOCS / docname).parent

    def plain(found: re.Match[str]) -> str:
        target = (folder / found[2].partition("#")[0]).resolve()
        if target.is_relative_to(DOCS) or not target.is_relative_to(ROOT):
            return found[0]
        name = str(target.relative_to(ROOT))
        return f"`{name}`" if found[1].strip("`") == name else f"{found[1]} (`{name}`)"

    source[0] = re.sub(r"(?<!!)\[([^\]\n]*)\]\((\.\.?/[^)\s]*)\)", plain, source[0])


def _leave_trailing_underscores(app: Any, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """quantize_ and the like are names, no links; the star of *shape is no emphasis, |x| an absolute value."""
    lines[:] = [re.sub(r"\b(\w+)_(?=[\s,.;:)]|$)", r"\1\\_", line) for line in lines]
    lines[:] = [re.sub(r"(?<![\w*`])\*(?=\w)", r"\\*", line) for line in lines]
    lines[:] = [re.sub(r"(?<!`)\|(?=[^`|]+\|)|(?<=\w)\|(?!`)", r"\\|", line) for line in lines]


def setup(app: Any) -> None:
    """Called by Sphinx."""
    app.connect("source-read", _name_files_of_the_repository)
    app.connect("autodoc-process-docstring", _leave_trailing_underscores)
