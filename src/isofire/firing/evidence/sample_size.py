"""How many images would make an interval as narrow as one wants it."""

from __future__ import annotations

import math

from isofire.errors import SpecError
from isofire.firing.evidence.interval import Interval

TOLERANCE = 0.1
"""Half an interval against the value that it is about."""


def images_enough(
    interval: Interval, n_images: int, *, tolerance: float = TOLERANCE, absolute: float | None = None
) -> int | None:
    """Number of images with which half of the interval would be at most `tolerance` of the value.

    The standard error falls with the square root of the number of images, so half of the interval is taken to do so,
    and the value to stay as it is (one of little more than noise falls too). That is a forecast from one sample, good
    to a factor of about 2.

    Parameters
    ----------
    interval
        As measured on `n_images` images.
    tolerance
        Share of the value.
    absolute
        Half width that is wanted, in the measure's own unit, instead of a share.

    Returns
    -------
    int or None
        At most `n_images` if they are enough already. None if it cannot be said: the measure is NaN, or unchanged rates
        are not ruled out, so that there is no value to take a share of (with `absolute` there is an answer then too).

    Raises
    ------
    SpecError
        If a number is not positive.

    Examples
    --------
    >>> wide = Interval(estimate=0.01, low=0.008, high=0.012, level=0.95, error=0.001)
    >>> images_enough(wide, 1000)
    4000
    """
    for name, value in (("n_images", n_images), ("tolerance", tolerance), ("absolute", absolute)):
        if value is not None and not value > 0:
            raise SpecError(f"{name} must be above 0, got {value}")
    if math.isnan(interval.half_width) or (absolute is None and not interval.resolved):
        return None
    wanted = tolerance * abs(interval.estimate) if absolute is None else absolute
    if wanted == 0:
        return None
    ratio = interval.half_width / wanted
    # rounding must not ask for one image more
    return max(1, math.ceil(n_images * ratio * ratio * (1 - 1e-9)))
