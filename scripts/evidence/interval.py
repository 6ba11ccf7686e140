"""The interval of a stored row's EMD, as the images it was measured on show it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from isofire.firing.evidence.interval import Interval
from isofire.firing.evidence.student import LEVEL

MEASURE = "emd_layer_mean"


def interval_of(row: Mapping[str, Any]) -> Interval:
    """Estimate and ends; the other fields are not stored.

    Rows of isofire 0.1 have `emd_bias`. Their ends are for unlimited images: the upper is t standard errors above the
    estimate less the bias, so from it the standard errors themselves are known again.
    """
    estimate, low, high = row[MEASURE], row["emd_low"], row["emd_high"]
    if "emd_bias" in row:
        half = high - estimate + row["emd_bias"]
        low, high = max(estimate - half, 0.0), estimate + half
    return Interval(estimate=estimate, low=low, high=high, level=LEVEL, error=0.0)
