"""Confidence intervals for every drift measure, from the image blocks of two recordings.

What is inferred: the measure that unlimited images of the same kind would give for these two networks. Blocks are
resampled for both networks alike (the same images for both), so that what an image does to both cancels.

Distances need care. Noise can only add to a sum of absolute differences, so EMD at n images lies above its limit, and
a resample, which is noisier still, lies higher again: percentile intervals miss the true value. With k times fewer
images the mean of the distance rises by d. If the bias falls as 1/n, it is d / (k - 1); if it falls as 1/sqrt(n), as
where rates hardly changed, it is d / (sqrt(k) - 1). The data cannot tell the two apart well, so an interval reaches
from the one to the other, and by t standard errors of the block jackknife (the jackknife sees the kinks of the
absolute value, the bootstrap smooths them away) further on both sides. Where a world with unchanged rates would give
such a distance, the interval begins at 0.

`reshuffle` is paired drift less EMD, and noise raises both, so its bias is taken off whichever sign it has; where EMD
may be noise alone, the interval reaches up to that of the paired drift.

Seen in simulation of Bernoulli neurons with known rates, level 95 % (tests/firing/evidence): coverage of EMD, rates
and their changes 93 to 97 % where the distance is resolved, up to 100 % where it is not (no method can be exact there,
and this one errs on the safe side). `paired_mae` is covered up to 100 % of the time where the noise of the two networks
is independent: its bias is the largest. Where neurons exchange rates but each keeps the noise of its place,
EMD and `reshuffle` are covered 82 to 88 % of the time: what unchanged rates would give is then taken too small. The
percentile interval covers 85 to 98 % where the distance is resolved, and never where rates hardly changed and the noise
is independent.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from isofire.errors import DataError, SpecError
from isofire.firing.counts import SpikeCounts
from isofire.firing.evidence.draws import bootstrap, everything, leave_one_out, subsets
from isofire.firing.evidence.resample import Resampled, Values, resample, used_blocks
from isofire.firing.evidence.student import check_level, t_value
from isofire.firing.measures import MEASURES, Combine, Quantity, quantities

MIN_BLOCKS = 5
RESAMPLES = 1000
LEAST_RESAMPLES = 50


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A measured value and where the true one lies.

    Parameters
    ----------
    estimate
        The value as measured on all images.
    low, high
        Ends of the interval.
    level
        Its nominal coverage.
    bias, bias_most
        What the finite number of images is estimated to add to `estimate`: the smaller and the larger of the two
        estimates, see the module. Where the distance is not resolved, all of it may be bias.
    error
        Standard error.
    resolved
        For a distance: whether unchanged rates can be ruled out. True for every other measure.
    """

    estimate: float
    low: float
    high: float
    level: float
    bias: float
    error: float
    resolved: bool = True
    bias_most: float | None = None

    @property
    def corrected(self) -> float:
        """`estimate - bias`, not below 0 for a distance."""
        return min(max(self.estimate - self.bias, self.low), self.high)

    @property
    def half_width(self) -> float:
        """Half the interval's length."""
        return (self.high - self.low) / 2

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high


@dataclass(frozen=True, kw_only=True)
class DriftIntervals:
    """Intervals of all measures.

    Parameters
    ----------
    layers
        Layer -> measure -> interval, measures as in `LayerDrift`, and `mfr_change`, `dead_*_change` (quantized minus
        baseline).
    overall
        Measure -> interval, as `overall_drift`.
    n_images, blocks, resamples
        Images, blocks that hold images, and bootstrap draws behind them.
    """

    layers: Mapping[str, Mapping[str, Interval]]
    overall: Mapping[str, Interval]
    n_images: int
    blocks: int
    resamples: int


def drift_intervals(
    baseline: SpikeCounts,
    quantized: SpikeCounts,
    *,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
    ranks: bool = True,
) -> DriftIntervals:
    """Intervals for all drift measures of two recordings of the same images.

    Distances: see the module; `spearman`, which noise lowers, likewise. Rates, which have no bias: plus and minus t
    standard errors of the block bootstrap. Dead shares likewise, but they fall with the number of images (a rarely
    firing neuron needs many to be seen once), so theirs is an interval for the share that other images, as many as
    these, would show; the share in the limit cannot be known. Student's t with blocks - 1 degrees of freedom, and the
    bootstrap's variance times blocks / (blocks - 1), widen what a bootstrap of few blocks makes too narrow (Hesterberg
    2015, "What Teachers Should Know About the Bootstrap").

    Parameters
    ----------
    level
        Nominal coverage.
    resamples
        Bootstrap draws, >= 50; half as many of the world with unchanged rates and a fifth as many halves are drawn too.
    seed
        Of the draws: the same recordings and seed give the same intervals.
    ranks
        Whether to compute `spearman`, the slowest measure; NaN otherwise.

    Raises
    ------
    ModelError, DataError
        If the recordings do not belong together, or fewer than 5 blocks hold images.
    SpecError
        If `level` or `resamples` is out of range.
    """
    check_level(level)
    if resamples < LEAST_RESAMPLES:
        raise SpecError(f"resamples must be at least {LEAST_RESAMPLES}, got {resamples}")
    blocks = require_blocks(baseline)
    rng = np.random.default_rng(seed)
    parts = [
        everything(blocks),
        leave_one_out(blocks),
        subsets(blocks, max(resamples // 5, 10), rng),
        bootstrap(blocks, resamples, rng),
    ]
    drawn = resample(baseline, quantized, np.concatenate(parts), ranks=ranks)
    # drawn anew: noise shared with the bootstrap above would not be noise
    still = resample(baseline, quantized, bootstrap(blocks, max(resamples // 2, LEAST_RESAMPLES), rng), unchanged=True)
    make = _Maker(level, blocks, drawn, still, [len(part) for part in parts])
    return DriftIntervals(
        layers={name: {key: make(key, name) for key in drawn.layers[name]} for name in baseline.layers},
        overall={key: make(key, None) for key in drawn.overall},
        n_images=baseline.n_images,
        blocks=blocks,
        resamples=resamples,
    )


def require_blocks(counts: SpikeCounts) -> int:
    """Number of blocks that hold images, if there are enough for an interval.

    Raises
    ------
    DataError
        If there are fewer than 5.
    """
    blocks = used_blocks(counts)
    if blocks < MIN_BLOCKS:
        raise DataError(
            f"an interval needs images in at least {MIN_BLOCKS} blocks, got {blocks} ({counts.n_images} images); "
            "record more images, or with a smaller `run`"
        )
    return blocks


class _Maker:
    """Makes an interval from the draws of one measure."""

    def __init__(self, level: float, blocks: int, drawn: Resampled, still: Resampled, sizes: list[int]) -> None:
        self.level, self.blocks, self.drawn, self.still = level, blocks, drawn, still
        self.bounds = np.cumsum(sizes)[:-1]
        self.t = t_value(level, blocks - 1)
        self.fewer = blocks / (blocks // 2)
        self.known = {is_layer: quantities(layer=is_layer) for is_layer in (False, True)}

    def __call__(self, name: str, layer: str | None) -> Interval:
        asked = self.known[layer is not None][name]
        noise, (bottom, top) = asked.measure.noise, asked.bounds
        sample, left_out, halves, boot = np.split(self.drawn.get(name, layer), self.bounds)
        estimate = float(sample[0])
        if np.isnan(estimate):
            return self._interval(estimate, estimate, estimate, 0.0, estimate)
        rise = _mean(halves) - estimate
        spread = float(np.nanstd(boot, ddof=1)) * (self.blocks / (self.blocks - 1)) ** 0.5
        if noise == "sample":
            low, high = estimate - self.t * spread, estimate + self.t * spread
            return self._interval(estimate, max(low, bottom), min(high, top), 0.0, spread)
        error = spread if noise == "none" else max(_jackknife(left_out), spread)
        rise = max(rise, 0.0) if noise == "upward" else rise
        least, most = rise / (self.fewer - 1), rise / (self.fewer**0.5 - 1)
        if noise == "none":
            least = most = 0.0
        low = estimate - max(least, most) - self.t * error
        high = estimate - min(least, most) + self.t * error
        resolved = True
        if asked.measure.distance:
            still = float(np.quantile(self.still.get(name, layer), (1 + self.level) / 2))
            resolved = estimate > still + 1e-12
            low = low if resolved else 0.0
        high = max(high, self._whole(asked, layer))
        low = min(max(low, bottom), top)
        return self._interval(estimate, low, min(max(high, low), top), least, error, resolved, most)

    def _whole(self, asked: Quantity, layer: str | None) -> float:
        """Where the part of a remainder may be noise alone, the remainder may be as large as the whole."""
        if asked.measure.remainder is None:
            return -np.inf
        whole, part = (self._named(name, asked.combine) for name in asked.measure.remainder)
        return -np.inf if self(part, layer).resolved else self(whole, layer).high

    def _named(self, measure: str, combine: Combine | None) -> str:
        """The name of a measure's value over layers that are combined alike; of a layer, its own."""
        overall = MEASURES[measure].overall
        return measure if combine is None else next(name for name, how in overall.items() if how == combine)

    def _interval(
        self,
        estimate: float,
        low: float,
        high: float,
        bias: float,
        error: float,
        resolved: bool = True,
        most: float | None = None,
    ) -> Interval:
        return Interval(
            estimate=estimate, low=low, high=high, level=self.level, bias=bias, error=error, resolved=resolved,
            bias_most=most,
        )  # fmt: skip


def _jackknife(left_out: Values) -> float:
    blocks = len(left_out)
    return float(np.sqrt((blocks - 1) / blocks * ((left_out - left_out.mean()) ** 2).sum()))


def _mean(values: Values) -> float:
    """Mean of the draws in which the measure exists."""
    return float(np.nanmean(values)) if not np.isnan(values).all() else float("nan")
