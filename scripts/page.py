"""A page that a command writes, or only compares with what is there."""

from __future__ import annotations

import sys
from pathlib import Path


def is_asked_to_compare() -> bool:
    """Whether the command was given `--check`."""
    return "--check" in sys.argv


def keep(path: Path, text: str, command: str) -> int:
    """Write `text`; with `--check` only say whether it is there. 1 if it is not, else 0."""
    if not is_asked_to_compare():
        path.write_text(text, encoding="utf-8")
        return 0
    same = path.exists() and path.read_text(encoding="utf-8") == text
    print(f"{path.name} is up to date" if same else f"{path.name} differs: run `{command}`")
    return 0 if same else 1
