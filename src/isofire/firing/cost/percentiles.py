"""How a load varies from image to image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike


@dataclass(frozen=True, kw_only=True)
class Percentiles:
    """Mean, median, 99th percentile and largest value over images.

    A percentile is the smallest value that at least so many of the images do not exceed, so it is one that occurred.
    """

    mean: float
    p50: float
    p99: float
    max: float

    @classmethod
    def of(cls, values: ArrayLike) -> Percentiles:
        """Of one value an image, [N].

        Examples
        --------
        >>> Percentiles.of([1, 2, 3, 10])
        Percentiles(mean=4.0, p50=2.0, p99=10.0, max=10.0)
        """
        array = np.asarray(values, dtype=np.float64)
        middle, high = np.quantile(array, [0.5, 0.99], method="inverted_cdf")
        return cls(mean=float(array.mean()), p50=float(middle), p99=float(high), max=float(array.max()))
