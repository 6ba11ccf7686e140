"""Figures on disk, where matplotlib is installed."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from isofire.cli.screen import Log
from isofire.files import write_atomic

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_DOTS_PER_INCH = 160


def save_figure(path: Path, draw: Callable[[], Figure], log: Log) -> Path | None:
    """Draw and write a PNG; without matplotlib say which extra to install, and return None.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    if find_spec("matplotlib") is None:
        log(f"no {path.name}: a figure needs matplotlib; pip install 'isofire[report]'")
        return None
    figure = draw()
    return write_atomic(path, lambda part: figure.savefig(part, format="png", dpi=_DOTS_PER_INCH))
