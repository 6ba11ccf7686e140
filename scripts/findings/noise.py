"""Which noise floor a cell of the first look has, and whether it stands out of it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.evidence.interval import MEASURE
from scripts.findings.cells import Row

from isofire.firing.evidence.kept import Kept, kept
from isofire.firing.evidence.noise_floor import FloorValue, of_image_floor
from isofire.firing.evidence.outcome import FLOOR_IMAGES, MARKS, Outcome

NAMES = {
    "images": "other images",
    "ptq": "BN re-estimated (control)",
    "qat": "continued (control)",
    "seeds": "another seed",
}
_BLOCKS = 40
"""Of the recordings of the first look."""


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

    def image_floor(self) -> FloorValue:
        """That of 1,000 images, which every cell has: the stored one is of as many as were looked at."""
        stored = self.value("images")
        assert stored is not None
        return of_image_floor(stored.value * math.sqrt(self.stored["n_images"] / FLOOR_IMAGES), _BLOCKS)

    def of(self, row: Row) -> FloorValue:
        """The floor of a cell: the larger of the image floor and of the mean of the controls with its steps."""
        images = self.image_floor()
        control = None if kind_of(row) == "images" else self.value(kind_of(row))
        return control if control is not None and control.value > images.value else images

    def kept(self, row: Row) -> Kept:
        """The verdict on a cell, by the one rule."""
        return kept([row], [self.of(row)], measure=MEASURE)

    def shown(self, row: Row) -> str:
        """EMD as a multiple of its floor, with the mark of what that says of firing."""
        found = self.kept(row)
        assert found.multiple is not None
        return f"{found.multiple.estimate:.1f} {MARKS[found.firing or 'undecided']}"

    def count(self, rows: list[Row], outcome: Outcome) -> int:
        """How many cells have this outcome of firing."""
        return sum(self.kept(row).firing == outcome for row in rows)


def kind_of(row: Row) -> str:
    """The control of a cell; "images" for a control itself and where the procedure does nothing besides quantizing."""
    if row["target"] == "none" or (row["target"], row["mode"]) == ("membrane", "ptq"):
        return "images"
    return row["mode"]
