"""The stored run that all of this is about."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from isofire.study import read_rows

BASELINE = "sew_resnet8-cifar10"
ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "results" / "2026-11-25_cifar10-first-look"


def stored_rows() -> list[dict[str, Any]]:
    """The rows of the stored run."""
    return [dict(row) for row in read_rows(FOLDER / "results.json")]


def same_rows(rows: Sequence[Any]) -> list[dict[str, Any]]:
    """The rows of a sweep, after making sure that they are those that were stored.

    Raises
    ------
    SystemExit
        If they are not.
    """
    stored = {row["cell"]: row["emd_layer_mean"] for row in stored_rows()}
    given = {row["cell"]: row["emd_layer_mean"] for row in rows}
    if given != stored:
        raise SystemExit(f"the sweep's {len(given)} cells are not the {len(stored)} stored in {FOLDER.name}")
    return [dict(row) for row in rows]


def same_controls(rows: Sequence[Any]) -> dict[str, list[str]]:
    """Mode -> cells of a sweep's controls by seed, after making sure that they are the replicates that were stored.

    Raises
    ------
    SystemExit
        If they are not.
    """
    stored = [row for row in read_rows(FOLDER / "replicates.json") if row["target"] == "none"]
    values = [{(row["mode"], row["seed"]): row["emd_layer_mean"] for row in some} for some in (stored, rows)]
    if values[0] != values[1]:
        raise SystemExit(f"the sweep's {len(rows)} controls are not the {len(stored)} stored in {FOLDER.name}")
    ordered = sorted(rows, key=lambda row: row["seed"])
    return {mode: [row["cell"] for row in ordered if row["mode"] == mode] for mode in ("ptq", "qat")}
