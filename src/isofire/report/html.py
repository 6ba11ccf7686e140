"""Templates, style and script of the pages: one file each page, nothing fetched from anywhere."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import resources
from typing import TYPE_CHECKING, Any

from isofire.errors import OutputError

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

# what a script or comment could be ended with, and what old JavaScript took for ends of lines
_ESCAPES = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}


def render(template: str, **context: Any) -> str:
    """A page from one of the package's templates; all values are escaped.

    Raises
    ------
    OutputError
        If jinja2 is not installed.
    """
    environment = _environment()
    markup = _markup()
    return environment.get_template(template).render(
        style=markup(_asset("style.css")), script=markup(_asset("page.js")), **context
    )


def embedded_json(value: Mapping[str, Any]) -> Markup:
    """JSON that may stand inside a `<script>` element, whatever texts it holds; NaN is not allowed.

    Examples
    --------
    >>> str(embedded_json({"a": "</script>"}))
    '{"a":"\\\\u003c/script\\\\u003e"}'
    """
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character, escape in _ESCAPES.items():
        text = text.replace(character, escape)
    return _markup()(text)


def _asset(name: str) -> str:
    return (resources.files("isofire.report") / "assets" / name).read_text(encoding="utf-8")


def _environment() -> Environment:
    try:
        from jinja2 import Environment, FunctionLoader, StrictUndefined
    except ImportError as error:
        raise _missing() from error
    return Environment(
        loader=FunctionLoader(_asset), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )


def _markup() -> type[Markup]:
    try:
        from markupsafe import Markup
    except ImportError as error:
        raise _missing() from error
    return Markup


def _missing() -> OutputError:
    return OutputError("a report needs jinja2, which is not installed; pip install 'isofire[report]'")
