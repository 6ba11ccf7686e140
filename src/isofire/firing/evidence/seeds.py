"""One value from several seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence

from isofire.errors import DataError
from isofire.firing.evidence.interval import Interval
from isofire.firing.evidence.student import t_value


def over_seeds(values: Sequence[float], *, level: float = 0.95) -> Interval:
    """Mean over independent seeds, plus and minus Student's t standard errors.

    The spread between seeds already holds the noise of images, so no image interval is added to it.

    Raises
    ------
    DataError
        If there are fewer than two values, or one is not finite.

    Examples
    --------
    >>> found = over_seeds([0.010, 0.012, 0.014])
    >>> round(found.estimate, 4), round(found.low, 4), round(found.high, 4)
    (0.012, 0.007, 0.017)
    """
    if len(values) < 2 or not all(math.isfinite(value) for value in values):
        raise DataError(f"seeds are combined from at least 2 finite values, got {list(values)}; run another seed")
    n = len(values)
    mean = math.fsum(values) / n
    error = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1) / n)
    half = t_value(level, n - 1) * error
    return Interval(estimate=mean, low=mean - half, high=mean + half, level=level, error=error)
