"""Colour by method, shape by bits: both say it, so that no reader depends on colour."""

from __future__ import annotations

from isofire.study.marks import COLOURS, Marks, Row

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


class Palette(Marks):
    """The marks of a page: c0, c1, ... are classes of the style sheet."""

    def colour_class(self, row: Row) -> str:
        """The class of a row's colour."""
        number = self.colour(row)
        return "ctl" if number is None else f"c{number}"

    def path(self, row: Row) -> str:
        """The path of a row's mark."""
        return CROSS if self.colour(row) is None else SHAPES[self.shape(row, len(SHAPES))]

    def legend(self) -> dict[str, list[tuple[str, str]]]:
        """Names with their class or path."""
        return {
            "families": [(name, f"c{i % len(COLOURS)}") for i, name in enumerate(self.families)],
            "bits": [(name, SHAPES[i % len(SHAPES)]) for i, name in enumerate(self.bits)],
        }
