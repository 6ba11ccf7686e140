"""What figures on pages and in files share: colour by method, shape by bits, labels of ticks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from isofire.study.cell import is_control

Row = Mapping[str, Any]

COLOURS = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9",
    "#882255", "#999933", "#332288", "#44AA99",
)  # fmt: skip
"""Okabe and Ito's palette without its black and yellow, told apart in every common form of colour blindness; what
follows, from Tol's muted scheme, is only reached by figures of more than six families."""


class Marks:
    """Colours and shapes of a set of rows, as numbers: equal rows always get equal marks.

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

    def colour(self, row: Row) -> int | None:
        """Number of a row's colour; None for a control."""
        return None if is_control(dict(row)) else self.families.index(family_of(row)) % len(COLOURS)

    def shape(self, row: Row, shapes: int) -> int:
        """Number of a quantized row's shape among so many."""
        return self.bits.index(bits_text(row.get("bits"))) % shapes


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


def tick_text(value: float) -> str:
    """A tick's label, in plain decimals down to a millionth.

    Examples
    --------
    >>> tick_text(0.00005), tick_text(20.0), tick_text(2e-8)
    ('0.00005', '20', '2e-08')
    """
    if value == 0 or 1e-4 <= abs(value) < 1e6:
        return f"{value:g}"
    return f"{value:.7f}".rstrip("0") if 1e-6 <= abs(value) < 1 else f"{value:.0e}"
