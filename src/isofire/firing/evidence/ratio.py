"""How many times its floor a drift is, with the uncertainty of both.

The interval of a quotient d / f from the intervals of d and of f is that of MOVER, the method of variance estimates
recovery (Zou and Donner 2008, Statistics in Medicine 27; for quotients Donner and Zou 2012, Statistical Methods in
Medical Research 21): all k for which the interval of d - k f includes 0. With a = d - low(d) and b = high(f) - f its
lower end solves (d - k f)^2 = a^2 + k^2 b^2; the upper end takes the other halves. d and f are taken to be independent.
Measured on the same images they rise and fall together; the interval is then too wide rather than too narrow.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from isofire.firing.evidence.interval import Interval


class Magnitude(NamedTuple):
    """The size of a measure that may have a sign: value, and ends of its interval."""

    value: float
    low: float
    high: float


def magnitude(interval: Interval) -> Magnitude:
    """An interval without its sign; one that includes 0 begins there."""
    low, high = sorted((abs(interval.low), abs(interval.high)))
    if interval.low <= 0 <= interval.high:
        low = 0.0
    return Magnitude(abs(interval.estimate), low, high)


def ratio_interval(drift: Magnitude, floor: Magnitude) -> tuple[float, float]:
    """Ends of the interval of drift ÷ noise floor; NaN if one of the intervals is not known.

    Examples
    --------
    >>> low, high = ratio_interval(Magnitude(6, 5, 7), Magnitude(2, 1.5, 2.5))
    >>> round(low, 3), round(high, 3)
    (2.213, 4.251)
    """
    if any(math.isnan(end) for end in (*drift, *floor)):
        return math.nan, math.nan
    d, f = (min(max(value, low), high) for value, low, high in (drift, floor))
    if floor.high == 0:
        return math.inf if drift.low > 0 else 0.0, math.inf
    a, b = d - drift.low, floor.high - f
    low = (d * d - a * a) / (d * f + _root(d, f, a, b)) if d else 0.0
    a, b = drift.high - d, f - floor.low
    return low, (d * f + _root(d, f, a, b)) / (f * f - b * b) if floor.low > 0 else math.inf


def _root(d: float, f: float, a: float, b: float) -> float:
    return math.sqrt(max((d * b) ** 2 + (f * a) ** 2 - (a * b) ** 2, 0.0))
