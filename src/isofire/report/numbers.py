"""Numbers as a report writes them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

from isofire.firing.evidence.interval import Interval

DASH = "–"
MINUS = "−"


def percent(share: float | None, digits: int = 2) -> str:
    """A share of 1 as a number of percent, without the sign %."""
    return DASH if _absent(share) else _minus(f"{100 * share:.{digits}f}")  # type: ignore[operator]


def points(share: float | None, digits: int = 2) -> str:
    """A difference of shares in percentage points, with its sign."""
    return DASH if _absent(share) else _minus(f"{100 * share:+z.{digits}f}")  # type: ignore[operator]


def signed(value: float | None) -> str:
    """As `significant`, with the sign of positive values."""
    return f"+{significant(value)}" if value is not None and value > 0 else significant(value)


def significant(value: float | None, digits: int = 3) -> str:
    """Plain decimals with so many significant digits, at most seven places.

    Examples
    --------
    >>> significant(0.0123456), significant(123.456)
    ('0.0123', '123')
    """
    if _absent(value):
        return DASH
    assert value is not None
    if value == 0:
        return "0"
    if math.isinf(value):
        return _minus(f"{'-' if value < 0 else ''}∞")
    # rounding may carry into one more digit: 0.000998 is 0.0010
    exponent = int(f"{value:.{digits - 1}e}".partition("e")[2])
    places = min(7, max(0, digits - 1 - exponent))
    return _minus(f"{value:.{places}f}")


def fixed(value: float | None, digits: int = 2) -> str:
    """Plain decimals with so many places."""
    return DASH if _absent(value) else _minus(f"{value:.{digits}f}")


def times(value: float | None) -> str:
    """A multiple, such as "2.4×"; one above 1, the limit of what is kept, never reads as 1.

    Examples
    --------
    >>> times(2.44), times(1.004), times(1.0), times(1 + 1e-9)
    ('2.4×', '1.004×', '1×', '>1×')
    """
    if _absent(value):
        return DASH
    assert value is not None
    if value >= 10:
        return f"{value:.0f}×"
    for digits in (2, 3, 4):
        text = f"{value:.{digits}g}"
        if value <= 1 or float(text) > 1:
            return f"{text}×"
    return ">1×"


def multiple_text(found: Interval) -> str:
    """A multiple with its interval, such as "2.4× (1.9 to 3.1)"."""
    if math.isnan(found.low):
        return times(found.estimate)
    return f"{times(found.estimate)} ({significant(found.low, 2)} to {significant(found.high, 2)})"


def with_spread(mean: str, spread: str | None) -> str:
    """Mean and standard deviation; the mean alone where there is no spread."""
    return mean if spread is None else f"{mean} ± {spread}"


def span(form: Callable[[float], str], values: Iterable[float]) -> str:
    """The least and the largest, such as "500 to 2,000"; one number where they read alike.

    Examples
    --------
    >>> span(whole, [2000, 500]), span(whole, [500])
    ('500 to 2,000', '500')
    """
    known = list(values)
    low, high = form(min(known)), form(max(known))
    return low if low == high else f"{low} to {high}"


def whole(value: float | None) -> str:
    """A whole number with thousands apart."""
    return DASH if _absent(value) else f"{value:,.0f}"


def _absent(value: float | None) -> bool:
    return value is None or math.isnan(value)


def _minus(text: str) -> str:
    return text.replace("-", MINUS)
