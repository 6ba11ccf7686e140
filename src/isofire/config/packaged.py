"""Configurations that come with the package, by the names that the documents use: configs/demo/digits.toml."""

from __future__ import annotations

import os
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "configs"
"""Networks, sweeps and studies that run as they are."""


def located(path: str | os.PathLike[str]) -> Path:
    """The file of this name, or where there is none and it begins with configs/ the package's.

    Examples
    --------
    >>> located("configs/demo/digits.toml").read_text(encoding="utf-8").startswith("#")
    True
    """
    path = Path(path)
    if path.parts[:1] != (FOLDER.name,) or ".." in path.parts or path.exists():
        return path
    inside = FOLDER.joinpath(*path.parts[1:])
    return inside if inside.is_file() else path
