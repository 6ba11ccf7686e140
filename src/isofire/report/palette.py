"""Colour by method, shape by bits: both say it, so that no reader depends on colour; the same on pages and in files."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from isofire.study import is_control

Row = Mapping[str, Any]

COLOURS = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9",
    "#882255", "#999933", "#332288", "#44AA99",
)  # fmt: skip
"""Okabe and Ito's palette without its black and yellow, told apart in every common form of colour blindness; what
follows, from Tol's muted scheme, is only reached by figures of more than six families. The style sheet has them by
their numbers, as c0, c1, ..., for light and dark pages."""


class Shape(NamedTuple):
    """An outline about the origin as a path of an SVG, and what matplotlib calls it; all of about equal area."""

    path: str
    marker: str


CIRCLE = Shape("M0,-5A5,5 0 1 1 0,5A5,5 0 1 1 0,-5Z", "o")
BAR = Shape("M-6.5,-3.2H6.5V3.2H-6.5Z", "")
"""Of legends, for colour and mode: the shape of no number of bits."""
CROSS = Shape("M-4.5,-4.5L4.5,4.5M-4.5,4.5L4.5,-4.5", "x")
SHAPES = (
    Shape("M0,5.6L-5.6,-4.2H5.6Z", "v"),
    Shape("M-4.4,-4.4H4.4V4.4H-4.4Z", "s"),
    CIRCLE,
    Shape("M0,-6.2L6.2,0L0,6.2L-6.2,0Z", "D"),
    Shape("M0,-5.6L-5.6,4.2H5.6Z", "^"),
    Shape("M-1.8,-5.6H1.8V-1.8H5.6V1.8H1.8V5.6H-1.8V1.8H-5.6V-1.8H-1.8Z", "P"),
    Shape("M0,-6L5.7,-1.9L3.5,4.9H-3.5L-5.7,-1.9Z", "p"),
    Shape("M-2.4,-5.6H2.4L5.6,-2.4V2.4L2.4,5.6H-2.4L-5.6,2.4V-2.4Z", "8"),
)


class Palette:
    """Colours and shapes of a set of rows: equal rows always get equal marks.

    Attributes
    ----------
    families
        What shares a colour, in the order in which it first occurs; controls have none.
    bits
        What shares a shape, ascending.
    """

    def __init__(self, rows: Sequence[Row]) -> None:
        quantized = [row for row in rows if not is_control(dict(row))]
        self.families = list(dict.fromkeys(map(family_of, quantized)))
        numbers = {bits_text(row.get("bits")): row.get("bits") for row in quantized}
        self.bits = sorted(numbers, key=lambda text: bits_order(numbers[text]))

    def mark(self, row: Row) -> dict[str, Any]:
        """A row's mark.

        Number of its colour (`hue`; None for a control) and the class of that (`colour`), `path` and `marker`, and its
        `kind`: "cross" for a control, "full" for a network that was trained with its quantizers, else "open".
        """
        if is_control(dict(row)):
            return {"hue": None, "colour": "ctl", **CROSS._asdict(), "kind": "cross"}
        number = self.families.index(family_of(row)) % len(COLOURS)
        shape = SHAPES[self.bits.index(bits_text(row.get("bits"))) % len(SHAPES)]
        kind = "full" if row.get("mode") == "qat" else "open"
        return {"hue": number, "colour": f"c{number}", **shape._asdict(), "kind": kind}

    def legend(self) -> dict[str, Any]:
        """Names with the number of their colour, or their shape; and what stands for any shape, and for controls."""
        return {
            "families": [(name, i % len(COLOURS)) for i, name in enumerate(self.families)],
            "bits": [(name, SHAPES[i % len(SHAPES)]) for i, name in enumerate(self.bits)],
            "any": BAR,
            "control": CROSS,
        }


def family_of(row: Row) -> str:
    """What shares a colour: what is quantized, and how."""
    return f"{row.get('target')}: {row.get('method')}"


def bits_text(bits: Any) -> str:
    """Bits without needless decimals; a dash for none."""
    if bits is None:
        return "-"
    return f"{bits:.3g}" if isinstance(bits, int | float) else str(bits)


def bits_order(bits: Any) -> tuple[float, str]:
    """For sorting bits that may be numbers or text such as "2 | 4"."""
    if isinstance(bits, int | float):
        return float(bits), ""
    head = str(bits).partition("|")[0].strip()
    return (float(head) if head.replace(".", "", 1).isdigit() else math.inf), str(bits)
