"""Scales and ticks of hand-made figures: data in, places in an SVG out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

LEFT, RIGHT, TOP, BOTTOM = 58, 742, 16, 378
"""The field of the figures of 760 by 430 units."""


@dataclass(frozen=True)
class Axis:
    """A linear or logarithmic map from [low, high] to [start, end] in SVG units."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def at(self, value: float) -> float:
        """Where a value lies, kept within the axis, to a tenth of a unit."""
        value = min(max(value, self.low), self.high)
        if self.log:
            share = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 1)

    def ticks(self, count: int = 5) -> list[float]:
        """Round values within the axis; 1, 2, 5 times powers of ten."""
        if self.log:
            return _log_ticks(self.low, self.high)
        step = nice((self.high - self.low) / max(count, 1))
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [round(k * step, 12) for k in range(first, last + 1)]

    def marked(self, count: int = 5) -> list[tuple[float, str]]:
        """Places and labels of `ticks`."""
        return [(self.at(value), tick_text(value)) for value in self.ticks(count)]


def log_axis(values: Sequence[float], start: float, end: float) -> Axis:
    """An axis around positive values, at least a factor of ten long; values of 0 lie at its left end."""
    positive = [value for value in values if value > 0 and math.isfinite(value)]
    low, high = (min(positive), max(positive)) if positive else (1e-4, 1e-2)
    low, high = low / 1.6, high * 1.4
    if high / low < 10:
        middle = math.sqrt(low * high)
        low, high = middle / math.sqrt(10), middle * math.sqrt(10)
    return Axis(low, high, start, end, log=True)


def linear_axis(values: Sequence[float], start: float, end: float, least: float = 1e-9) -> Axis:
    """An axis around finite values with a margin of 6 %, at least `least` long."""
    found = [value for value in values if math.isfinite(value)] or [0.0]
    low, high = min(found), max(found)
    margin = max(0.06 * (high - low), (least - (high - low)) / 2)
    return Axis(low - margin, high + margin, start, end)


def error_axis(shares: Sequence[float], images: int, start: float, end: float) -> Axis:
    """A logarithmic axis of the error in percent, for shares of correct answers; `start` is the end of low accuracy.

    So points near 100 % stay apart where others lie far below. An error of 0 is drawn as half an image.
    """
    least = 50 / images
    errors = [max(least, 100 * (1 - share)) for share in shares] or [10.0]
    # where all lie close together, room around them would be most of the figure
    room = min(0.1, 0.35 * (max(errors) / min(errors) - 1))
    low, high = min(errors) / (1 + room), min(100.0, max(errors) * (1 + 0.8 * room))
    if high - low < 1:
        low, high = max(least / 2, low - 0.5), min(100.0, high + 0.5)
    return Axis(low, high, end, start, log=True)


def far_below(shares: Sequence[float], anchors: Sequence[float], images: int) -> float | None:
    """The accuracy below which a few would squeeze all others on an `error_axis`; None where none do.

    At most a quarter of `shares` are left below, as few as give the others twice the room; `anchors`, what must be seen
    beside them, stay above.
    """
    found = sorted(shares)

    def length(first: int) -> float:
        axis = error_axis([*found[first:], *anchors], images, 1, 0)
        return math.log(axis.high / axis.low)

    if length(0) < math.log(2):
        # errors within a factor of two squeeze nothing
        return None
    for count in range(1, len(found) // 4 + 1):
        if found[count - 1] < min(found[count], *anchors) and length(0) >= 2 * length(count):
            return found[count - 1]
    return None


def accuracy_ticks(axis: Axis) -> list[tuple[float, str]]:
    """Places and labels of round accuracies on an axis of the error."""
    errors = [e for e in _ERRORS if axis.low <= e <= axis.high] if axis.high / axis.low >= 3 else []
    # equal steps where the axis is short, or hardly any of those lie on it
    for count in (5, 8, 12):
        if len(errors) >= _FEWEST:
            break
        step = nice((axis.high - axis.low) / count)
        errors = [round(k * step, 12) for k in range(math.ceil(axis.low / step), math.floor(axis.high / step) + 1)]
    return [(axis.at(error), f"{100 - error:g}") for error in errors]


_FEWEST = 3
"""Ticks by which a logarithmic axis is read."""
_ERRORS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 50, 70, 90)


def nice(value: float) -> float:
    """The least of 1, 2, 5 times a power of ten that is not below a positive value.

    Examples
    --------
    >>> nice(0.031), nice(7.0), nice(2.0)
    (0.05, 10.0, 2.0)
    """
    power = 10.0 ** math.floor(math.log10(value) + 1e-12)
    return next(round(m * power, 12) for m in (1, 2, 5, 10) if m * power >= value * (1 - 1e-9))


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


def _log_ticks(low: float, high: float) -> list[float]:
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    many = math.log10(high / low) > 3
    found = [
        round(m * 10.0**p, 15) for p in powers for m in ((1,) if many else (1, 3) if high / low > 25 else (1, 2, 5))
    ]
    return [value for value in found if low <= value <= high]
