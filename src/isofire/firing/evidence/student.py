"""Quantiles of the normal and of Student's t distribution, without a statistics package."""

from __future__ import annotations

import math
from statistics import NormalDist

from isofire.errors import SpecError


def check_level(level: float) -> float:
    """A confidence level, strictly between 0 and 1.

    Raises
    ------
    SpecError
        If it is not; also for 95, which is meant as 0.95.
    """
    if not 0 < level < 1:
        raise SpecError(f"level must lie between 0 and 1, such as 0.95, got {level}")
    return level


def z_value(level: float) -> float:
    """Half width of the standard normal's central interval of this level: 1.96 for 0.95."""
    return NormalDist().inv_cdf((1 + check_level(level)) / 2)


LEVEL = 0.95
"""Nominal coverage of what is shown."""


def t_value(level: float, freedom: int) -> float:
    """Half width of the central interval of Student's t with `freedom` degrees of freedom: 2.023 for 0.95 and 39.

    Raises
    ------
    SpecError
        If `freedom` is below 1.

    Examples
    --------
    >>> round(t_value(0.95, 2), 3)
    4.303
    """
    check_level(level)
    if freedom < 1:
        raise SpecError(f"degrees of freedom must be at least 1, got {freedom}; more seeds or blocks are needed")
    low, high = 0.0, 1.0
    while _central(high, freedom) < level:
        high *= 2
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if _central(middle, freedom) < level else (low, middle)
    return (low + high) / 2


def _central(t: float, freedom: int) -> float:
    """P(|T| < t) by the finite series for whole degrees of freedom (Abramowitz and Stegun, 26.7.3 and 26.7.4)."""
    if freedom > 10_000:
        return 2 * NormalDist().cdf(t) - 1
    angle = math.atan(t / math.sqrt(freedom))
    sine, cosine = math.sin(angle), math.cos(angle)
    if freedom % 2 == 0:
        term = total = 1.0
        for k in range(1, freedom // 2):
            term *= cosine * cosine * (2 * k - 1) / (2 * k)
            total += term
        return sine * total
    term = total = 0.0
    if freedom > 1:
        term = total = cosine
        for k in range(1, (freedom - 1) // 2):
            term *= cosine * cosine * (2 * k) / (2 * k + 1)
            total += term
    return 2 / math.pi * (angle + sine * total)
