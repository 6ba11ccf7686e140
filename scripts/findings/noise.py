"""Which noise floor a cell of the first look has, and whether it stands out of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.evidence.interval import MEASURE, interval_of
from scripts.findings.cells import Row

from isofire.firing.evidence.noise_floor import FloorValue
from isofire.firing.evidence.summary import DriftVsFloor

NAMES = {
    "images": "other images",
    "ptq": "BN re-estimated (control)",
    "qat": "continued (control)",
    "seeds": "another seed",
}
MARK = "≈"
"""Follows a multiple of a floor that is within noise."""


@dataclass(frozen=True)
class Floors:
    """What `python -m scripts.evidence.floors` stored."""

    stored: Mapping[str, Any]

    @classmethod
    def read(cls, path: Path) -> Floors:
        """Of a stored run's `floors.json`."""
        return cls(json.loads(path.read_text(encoding="utf-8")))

    @property
    def networks(self) -> list[Mapping[str, Any]]:
        """Seed, accuracy and mean rate of the full-precision networks."""
        return self.stored["networks"]

    @property
    def runs(self) -> int:
        """How often each control was run."""
        return self.stored["runs"]

    def value(self, kind: str, measure: str = MEASURE) -> FloorValue | None:
        """A floor; None if it has no such measure."""
        found = self.stored["floors"][kind]["overall"].get(measure)
        return None if found is None else FloorValue(**found)

    def against(self, row: Row, kind: str | None = None) -> DriftVsFloor:
        """A cell's EMD and a floor, by default that of the cell."""
        return DriftVsFloor(interval=interval_of(row), floor=self.value(kind or kind_of(row)))

    def shown(self, row: Row, kind: str | None = None) -> str:
        """EMD as a multiple of the floor, marked where it is within noise."""
        found = self.against(row, kind)
        return f"{found.ratio:.1f}{f' {MARK}' if found.within_noise else ''}"

    def within(self, rows: list[Row], kind: str | None = None) -> int:
        """How many cells are within noise."""
        return sum(bool(self.against(row, kind).within_noise) for row in rows)


def kind_of(row: Row) -> str:
    """The floor of a cell: its control; other images where the procedure does nothing besides quantizing."""
    if row["target"] == "none" or (row["target"], row["mode"]) == ("membrane", "ptq"):
        return "images"
    return row["mode"]
