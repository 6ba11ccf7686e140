"""One comparison's drift beside its noise: interval, floor, ratio, and whether it stands out."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any
from weakref import WeakKeyDictionary

from isofire.errors import DataError
from isofire.firing.counts import SpikeCounts
from isofire.firing.evidence.interval import DriftIntervals, Interval, drift_intervals
from isofire.firing.evidence.noise_floor import FloorValue, NoiseFloor, image_floor
from isofire.firing.evidence.outcome import FLOOR_IMAGES, HEADLINE
from isofire.firing.evidence.ratio import magnitude, ratio_interval
from isofire.firing.evidence.sample_size import images_enough

RESAMPLES = 200
"""Enough for a standard error that is off by 5 %; a comparison of 86,000 neurons takes a second for them."""


@dataclass(frozen=True, kw_only=True)
class DriftVsFloor:
    """A measure's interval against its floor.

    Parameters
    ----------
    interval
        The drift on as many images, see `isofire.firing.evidence.interval`.
    floor
        The same measure without quantization; None if the floor has none.
    """

    interval: Interval
    floor: FloorValue | None

    @property
    def ratio(self) -> float:
        """Drift ÷ noise floor, both as measured; NaN without a floor, or if both are 0."""
        if self.floor is None:
            return math.nan
        if self.floor.value == 0:
            return math.inf if self.interval.estimate != 0 else math.nan
        return abs(self.interval.estimate) / self.floor.value

    @property
    def ratio_interval(self) -> tuple[float, float]:
        """Ends of the interval of drift ÷ noise floor, with the uncertainty of both; NaN where one is not known."""
        if self.floor is None:
            return math.nan, math.nan
        return ratio_interval(magnitude(self.interval), self.floor.magnitude)

    @property
    def multiple(self) -> Interval:
        """Drift ÷ noise floor and its interval, as every verdict takes it: few images must not break a limit.

        What unchanged rates would show is taken off the drift's lower end and off that of a control; of an image floor
        the interval is that of its mean. NaN where one of the two is not known, or both are 0.
        """
        ratio = self.ratio
        if self.floor is None or self.floor.value == 0:
            return Interval(estimate=ratio, low=math.nan, high=math.nan, level=self.interval.level, error=math.nan)
        drift = magnitude(self.interval)
        low, high = ratio_interval(drift._replace(low=max(drift.low - self.interval.noise, 0.0)), self.floor.unit)
        return Interval(estimate=ratio, low=low, high=high, level=self.interval.level, error=math.nan)

    @property
    def within_noise(self) -> bool | None:
        """Whether the interval of drift ÷ noise floor reaches down to 1; None if that cannot be said."""
        low, _ = self.ratio_interval
        return None if math.isnan(low) else low <= 1


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What the images of a comparison allow to say.

    Parameters
    ----------
    intervals
        Of every measure.
    floor
        What it is compared with.
    """

    intervals: DriftIntervals
    floor: NoiseFloor

    def against(self, measure: str = HEADLINE, layer: str | None = None) -> DriftVsFloor:
        """A measure's interval and floor, over all layers or of one ("emd" there)."""
        found = self.intervals.overall if layer is None else self.intervals.layers[layer]
        return DriftVsFloor(interval=found[measure], floor=self.floor.get(measure, layer))

    def images_enough(self, measure: str = HEADLINE) -> int | None:
        """See `isofire.firing.evidence.images_enough`."""
        return images_enough(self.intervals.overall[measure], self.intervals.n_images)

    def to_dict(self) -> dict[str, Any]:
        """Plain values: floor, number of images that would be enough, intervals over all layers and of each."""

        def all_of(layer: str | None) -> dict[str, Any]:
            measures = self.intervals.overall if layer is None else self.intervals.layers[layer]
            return {key: _plain(self.against(key, layer)) for key in measures if not math.isnan(measures[key].estimate)}

        return {
            "floor": {"kind": self.floor.kind, "about": self.floor.about},
            "level": next(iter(self.intervals.overall.values())).level,
            "images_enough": self.images_enough(),
            "overall": all_of(None),
            "layers": {name: all_of(name) for name in self.intervals.layers},
        }


def evidence(
    baseline: SpikeCounts, quantized: SpikeCounts, floor: NoiseFloor | None = None, *, resamples: int = RESAMPLES
) -> Evidence:
    """Intervals of two recordings of the same images, and a floor: by default the baseline's, of `FLOOR_IMAGES` images.

    Raises
    ------
    DataError
        If fewer than 5 blocks hold images.
    """
    intervals = drift_intervals(baseline, quantized, resamples=resamples, ranks=False)
    return Evidence(intervals=intervals, floor=_image_floor(baseline) if floor is None else floor)


_FLOORS: WeakKeyDictionary[SpikeCounts, tuple[list[int], NoiseFloor]] = WeakKeyDictionary()
"""Recording -> how often its tensors had been changed in place, and its floor."""


def _image_floor(baseline: SpikeCounts) -> NoiseFloor:
    """Computed once for a baseline, with which many networks are compared."""
    tensors = [*baseline.counts.values(), baseline.images_per_block]
    if any(tensor.is_inference() for tensor in tensors):
        # torch does not count their changes
        return image_floor(baseline, images=FLOOR_IMAGES)
    versions = [tensor._version for tensor in tensors]
    if baseline not in _FLOORS or _FLOORS[baseline][0] != versions:
        _FLOORS[baseline] = versions, image_floor(baseline, images=FLOOR_IMAGES)
    return _FLOORS[baseline][1]


def evidence_or_reason(
    baseline: SpikeCounts, quantized: SpikeCounts, floor: NoiseFloor | None = None
) -> tuple[Evidence | None, str]:
    """`evidence`, or None and the reason why there is none."""
    try:
        return evidence(baseline, quantized, floor), ""
    except DataError as error:
        return None, str(error)


def _plain(against: DriftVsFloor) -> dict[str, Any]:
    interval = against.interval
    keys = ("low", "high", "error", "noise", "resolved", "true_low", "true_high")
    found: dict[str, Any] = {key: getattr(interval, key) for key in keys}
    if against.floor is not None:
        multiple = against.multiple
        found |= {"floor": asdict(against.floor), "ratio": against.ratio}
        found |= {"ratio_low": multiple.low, "ratio_high": multiple.high}
    return found
