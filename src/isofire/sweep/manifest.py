"""Sizes and checksums of a part's files, by which it is told whether the part is whole."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Literal

from isofire import toml_json
from isofire.errors import OutputError
from isofire.files import open_file, write_text

Kind = Literal["cells", "baselines"]
FILES: dict[Kind, frozenset[str]] = {
    "cells": frozenset({
        "row.json", "comparison.json", "counts.safetensors", "distributions.json", "history.json", "environment.json",
    }),
    "baselines": frozenset({"baseline.json", "model.safetensors", "counts.safetensors", "predictions.safetensors"}),
}  # fmt: skip
"""What a part has at least; cells have a `model.safetensors` too if the sweep keeps models."""
MANIFEST = "manifest.json"
_VERSION = 1


def is_intact(folder: Path, kind: Kind, key: str, *, deep: bool) -> bool:
    """Whether a folder holds a whole part: all files of their sizes; `deep`: every byte as it was written.

    Raises
    ------
    OutputError
        If it cannot be read, which says nothing about it.
    """
    try:
        manifest = toml_json.read_json(folder / MANIFEST)
        if manifest["version"] != _VERSION or manifest["key"] != key or not FILES[kind] <= manifest["files"].keys():
            return False
        for name, about in manifest["files"].items():
            if (folder / name).stat().st_size != about["bytes"]:
                return False
            if deep and _digest(folder / name) != about["sha256"]:
                return False
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return False
    except OSError as error:
        # too many open files or a server that is away say nothing about the part
        raise OutputError(
            f"cannot read {folder}: {error.strerror or error}; nothing was changed, mend that and give the same "
            "command again"
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError):
        return False
    return True


def write_manifest(folder: Path, key: str) -> None:
    """Note sizes and checksums of a folder's files beside them, and bring all to disk."""
    files = sorted(path for path in folder.iterdir() if path.is_file())
    about = {path.name: {"bytes": path.stat().st_size, "sha256": _digest(path)} for path in files}
    write_text(folder / MANIFEST, json.dumps({"version": _VERSION, "key": key, "files": about}, indent=1) + "\n")
    sync(folder)


def _digest(path: Path) -> str:
    with open_file(path) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sync(folder: Path) -> None:
    """Bring the names in a folder to disk."""
    if os.name == "nt":
        # which opens no folders, and writes names to disk by itself
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
