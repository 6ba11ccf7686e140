"""The interval of a stored row's EMD, as the images it was measured on show it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from isofire.firing.evidence.interval import Interval
from isofire.firing.evidence.kept import LAYER_MEAN, drift_of

MEASURE = LAYER_MEAN
"""The only drift that rows of isofire 0.1 have an interval of; without small layers the headline is close to it."""


def interval_of(row: Mapping[str, Any]) -> Interval:
    """Estimate and ends."""
    return drift_of(row, MEASURE)
