"""Colour by method, shape by bits: both say it, so that no reader depends on colour."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from isofire.report.entries import Row, bits_order, bits_text, family_of

COLOURS = 10
"""Classes c0, c1, ... of the style sheet, after Okabe and Ito, then Tol's muted scheme."""

# outlines about the origin, of about equal area
SHAPES = (
    "M0,5.6L-5.6,-4.2H5.6Z",
    "M-4.4,-4.4H4.4V4.4H-4.4Z",
    "M0,-5A5,5 0 1 1 0,5A5,5 0 1 1 0,-5Z",
    "M0,-6.2L6.2,0L0,6.2L-6.2,0Z",
    "M0,-5.6L-5.6,4.2H5.6Z",
    "M-1.8,-5.6H1.8V-1.8H5.6V1.8H1.8V5.6H-1.8V1.8H-5.6V-1.8H-1.8Z",
    "M0,-6L5.7,-1.9L3.5,4.9H-3.5L-5.7,-1.9Z",
    "M-2.4,-5.6H2.4L5.6,-2.4V2.4L2.4,5.6H-2.4L-5.6,2.4V-2.4Z",
)
CROSS = "M-4.5,-4.5L4.5,4.5M-4.5,4.5L4.5,-4.5"


class Palette:
    """Colours and shapes of a set of rows; equal rows always get equal marks."""

    def __init__(self, rows: Sequence[Row]) -> None:
        families = dict.fromkeys(family_of(row) for row in rows)
        families.pop("control", None)
        self.families = list(families)
        numbers: dict[str, Any] = {}
        for row in rows:
            if family_of(row) != "control":
                numbers.setdefault(bits_text(row.get("bits")), row.get("bits"))
        self.bits = sorted(numbers, key=lambda text: bits_order(numbers[text]))

    def colour(self, row: Row) -> str:
        """The class of a row's colour."""
        family = family_of(row)
        return "ctl" if family == "control" else f"c{self.families.index(family) % COLOURS}"

    def shape(self, row: Row) -> str:
        """The path of a row's mark."""
        if family_of(row) == "control":
            return CROSS
        return SHAPES[self.bits.index(bits_text(row.get("bits"))) % len(SHAPES)]

    def legend(self) -> dict[str, list[tuple[str, str]]]:
        """Names with their class or path."""
        return {
            "families": [(name, f"c{i % COLOURS}") for i, name in enumerate(self.families)],
            "bits": [(name, SHAPES[i % len(SHAPES)]) for i, name in enumerate(self.bits)],
        }
