"""Configurations that come with the package, by the names that the documents use: configs/demo/digits.toml."""

from __future__ import annotations

import os
from pathlib import Path

from isofire.errors import SpecError

FOLDER = Path(__file__).parents[1] / "configs"
"""Networks, sweeps and studies that run as they are."""


def located(path: str | os.PathLike[str]) -> Path:
    """The file of this name, or where there is none and it begins with configs/ the package's.

    Raises
    ------
    SpecError
        If there is none, and the package has one of that name in a folder.

    Examples
    --------
    >>> located("configs/demo/digits.toml").read_text(encoding="utf-8").startswith("#")
    True
    """
    path = Path(path)
    if path.exists():
        return path
    if path.parts[:1] == (FOLDER.name,) and ".." not in path.parts:
        inside = FOLDER.joinpath(*path.parts[1:])
        if inside.is_file():
            return inside
    if found := sorted(
        file.relative_to(FOLDER.parent).as_posix() for file in FOLDER.rglob("*.toml") if file.name == path.name
    ):
        raise SpecError(f"there is no file {path}; the package has {', '.join(found)}: name that")
    return path
