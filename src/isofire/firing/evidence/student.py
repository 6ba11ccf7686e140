"""Quantiles of the normal and of Student's t distribution, for intervals."""

from __future__ import annotations

from scipy.special import ndtri, stdtrit

from isofire.errors import SpecError


def check_level(level: float) -> float:
    """A confidence level, strictly between 0 and 1.

    Raises
    ------
    SpecError
        If it is not; also for 95, which is meant as 0.95.
    """
    if not 0 < level < 1:
        raise SpecError(f"level must lie above 0 and below 1, such as 0.95, got {level}")
    return level


def z_value(level: float) -> float:
    """Half width of the standard normal's central interval of this level: 1.96 for 0.95."""
    return float(ndtri((1 + check_level(level)) / 2))


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
    return float(stdtrit(freedom, (1 + level) / 2))
