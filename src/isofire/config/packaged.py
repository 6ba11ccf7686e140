"""Configurations that come with the package, by the names that the documents use: configs/demo/digits.toml."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from isofire.errors import SpecError
from isofire.toml_json import read_toml

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
    if path.exists():
        return path
    if path.parts[:1] == (FOLDER.name,) and ".." not in path.parts:
        inside = FOLDER.joinpath(*path.parts[1:])
        if inside.is_file():
            return inside
    return path


def read_located(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The TOML file of this name, see `located`.

    Raises
    ------
    SpecError
        If it cannot be read, as `read_toml`; where the package has one of that name in a folder, names that.
    """
    file = located(path)
    same = (own for own in FOLDER.rglob("*.toml") if own.name == file.name)
    if not file.exists() and (found := sorted(own.relative_to(FOLDER.parent).as_posix() for own in same)):
        raise SpecError(f"there is no file {file}; the package has {', '.join(found)}: name that")
    return read_toml(file)
