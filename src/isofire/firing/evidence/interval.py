"""Confidence intervals for every measure of firing, from the image blocks of two recordings.

**What is estimated.** A measure is computed from rates *as measured on n images*. Its interval is for the mean that it
has over all sets of n images like these: what other images, as many, show on average. For mean rates and their changes
that is the true value, whatever n is. For other measures it depends on n: noise in the rates adds to paired drift, adds
to EMD where distributions are alike and takes from it where one rate parts into two, hides rare spikes from dead
shares. How a measure would go on with more images the data do not tell well enough to extrapolate: where one layer
drifts and others keep their rates, its noise falls with the root of n in some layers and not at all in others. So
numbers compare at equal n, and a noise floor is one of as many images.

**How.** The measured value is an unbiased estimate of that mean. The interval reaches, on either side, t standard
errors (Student's t, blocks - 1 degrees of freedom) from it. The standard error is the larger of two: that of the
jackknife which leaves out one block at a time, and that of the block bootstrap, times root(blocks / (blocks - 1))
(Hesterberg 2015, "What Teachers Should Know About the Bootstrap"). Blocks count alike for both networks, so that what
an image does to both cancels. The jackknife is on average at least as large as it must be, whatever the measure (Efron
and Stein 1981, "The Jackknife Estimate of Variance"), and sees neurons with a single spike, of which a bootstrap knows
too little; the bootstrap sees steps further off than a single block moves a rate, as those of a dead share. Where few
images drive many spikes, blocks are skewed, and the side on which such images would add is longer, by Hall's
transformation of t (1992, "On the Removal of Skewness by Transformation"). A share of neurons moves in steps of one
neuron, so its interval is one neuron longer on either side.

**True rates**, those of unlimited images, have an EMD within a range that needs no extrapolation: it is at least the
shift and at most the paired drift, see `isofire.firing.Drift`. Both are norms of the neurons' changes of rate. So by
the triangle inequality a true one is at least the measured one less what noise alone makes of it, and by Jensen's the
mean of measured ones is at least the true one. The range ends where these two limits end, each at half of 1 - level.

**Unchanged rates** are looked at in a world in which no neuron changed its rate: the quantized network's counts are
moved, neuron by neuron, to the baseline's, and blocks are drawn again. What a distance is there on average is `noise`;
above the upper quantile it is `resolved`. Quantiles of draws are widened as above, by t over the normal quantile.

How often the intervals hold the truth in simulation: docs/evidence.md, by `python -m scripts.coverage`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from isofire.errors import DataError, SpecError
from isofire.firing.counts import SpikeCounts
from isofire.firing.evidence.draws import bootstrap, everything, leave_one_out
from isofire.firing.evidence.resample import Resampled, Values, resample, used_blocks
from isofire.firing.evidence.student import check_level, t_value, z_value
from isofire.firing.measures import Measure, Quantity, quantities

MIN_BLOCKS = 5
RESAMPLES = 1000
LEAST_RESAMPLES = 50
_TRACE = 1e-12
"""What rounding may leave of a difference of 0."""


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A measured value and where its mean over sets of as many images lies, see the module.

    Parameters
    ----------
    estimate
        The value as measured on all images.
    low, high
        Ends of the interval.
    level
        Its nominal coverage.
    error
        Standard error.
    noise
        How far as many images alone move it on average where no neuron changed its rate: a distance from 0, a rank
        correlation from 1; 0 of other measures, NaN if that is not known.
    resolved
        For a distance: whether unchanged rates can be ruled out. True for every other measure.
    true_low, true_high
        Where the value for true rates, those of unlimited images, lies; NaN where that is not known.
    """

    estimate: float
    low: float
    high: float
    level: float
    error: float
    noise: float = 0.0
    resolved: bool = True
    true_low: float = math.nan
    true_high: float = math.nan

    @property
    def half_width(self) -> float:
        """Half the interval's length."""
        return (self.high - self.low) / 2

    def apart_from_noise(self, measure: Measure) -> Interval:
        """The interval, its better end moved by what may be noise: for a limit that few images must not break."""
        if measure.distance:
            return replace(self, low=max(self.low - self.noise, 0.0))
        if measure.unchanged is not None:
            return replace(self, high=min(self.high + self.noise, measure.unchanged))
        return self

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
    """Intervals for all measures of two recordings of the same images, see the module.

    Parameters
    ----------
    level
        Nominal coverage.
    resamples
        Bootstrap draws, >= 50; half as many are drawn of the world with unchanged rates.
    seed
        Of the draws: the same recordings and seed give the same intervals.
    ranks
        Whether to compute `spearman`, the slowest measure, and others that are `slow`; NaN otherwise.

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
    draws = np.concatenate([everything(blocks), leave_one_out(blocks), bootstrap(blocks, resamples, rng)])
    drawn = resample(baseline, quantized, draws, ranks=ranks)
    # drawn anew: noise shared with the bootstrap above would not be noise
    still = resample(
        baseline, quantized, bootstrap(blocks, max(resamples // 2, LEAST_RESAMPLES), rng), ranks=ranks, unchanged=True
    )
    make = _Maker(level, blocks, drawn, still)
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

    def __init__(self, level: float, blocks: int, drawn: Resampled, still: Resampled) -> None:
        self.level, self.blocks, self.drawn, self.still = level, blocks, drawn, still
        self.t = t_value(level, blocks - 1)
        self.wider = (blocks / (blocks - 1)) ** 0.5
        self.known = {is_layer: quantities(layer=is_layer) for is_layer in (False, True)}

    def __call__(self, name: str, layer: str | None) -> Interval:
        asked = self.known[layer is not None][name]
        values = self.drawn.get(name, layer)
        estimate = float(values[0])
        if math.isnan(estimate):
            return Interval(estimate=estimate, low=estimate, high=estimate, level=self.level, error=estimate)
        (error, below, above), (bottom, top) = self._arms(values), asked.bounds
        step = 1 / self._neurons(layer) if asked.measure.share else 0.0
        low, high = max(estimate - below - step, bottom), min(estimate + above + step, top)
        true = (low, high) if asked.measure.mean else self._true(asked, layer)
        noise, resolved = 0.0, True
        if asked.measure.unchanged is not None:
            still = _known(np.abs(self.still.get(name, layer) - asked.measure.unchanged))
            noise = self.wider * float(still.mean()) if len(still) else math.nan
            resolved = not asked.measure.distance or estimate > self._most(still) + _TRACE
        return Interval(
            estimate=estimate, low=low, high=high, level=self.level, error=error, noise=noise, resolved=resolved,
            true_low=true[0], true_high=true[1],
        )  # fmt: skip

    def _arms(self, values: Values) -> tuple[float, float, float]:
        """Standard error, and how far an interval reaches below and above the estimate."""
        left_out, boot = values[1 : self.blocks + 1], values[self.blocks + 1 :]
        error = max(_jackknife(left_out), self.wider * _deviation(boot))
        below, above = skewed(left_out, self.t)
        return error, below * error, above * error

    def _neurons(self, layer: str | None) -> float:
        sizes = self.drawn.neurons
        return float(sizes.sum()) if layer is None else float(sizes[list(self.drawn.layers).index(layer)])

    def _true(self, asked: Quantity, layer: str | None) -> tuple[float, float]:
        """Ends of the range for true rates."""
        if asked.measure.between is None:
            return math.nan, math.nan
        lower, upper = asked.measure.between
        high = self.drawn.combined(upper, layer, "neurons" if asked.combine == "pooled" else asked.combine)
        most = float(high[0]) + self._arms(high)[2]
        if asked.combine == "pooled":
            # opposite shifts of two layers cancel in it
            return 0.0, most
        measured = float(self.drawn.combined(lower, layer, asked.combine)[0])
        least = measured - self._most(self.still.combined(lower, layer, asked.combine))
        return min(max(least, 0.0), most), most

    def _most(self, still: Values) -> float:
        """What noise alone makes of a distance at most, of a level."""
        return self.wider * self.t / z_value(self.level) * float(np.quantile(still, (1 + self.level) / 2))


def _jackknife(left_out: Values) -> float:
    known, blocks = _known(left_out), len(left_out)
    return float(np.sqrt((blocks - 1) * known.var())) if len(known) else 0.0


def skewed(left_out: Values, t: float) -> tuple[float, float]:
    """Half widths below and above, in standard errors: t, or more on a side to which blocks are skewed.

    With a = skewness / root(blocks), Hall's transformation of a standardised mean is x + a x^2 / 3 + a^2 x^3 / 27 +
    a / 6; where it equals -t and t are the ends.

    Parameters
    ----------
    left_out
        The measure without each block in turn [blocks]. Without a block that adds much, it is low.
    """
    known = _known(left_out)
    spread = float(known.std()) if len(known) else 0.0
    if spread < _TRACE:
        return t, t
    deviations = known.mean() - known
    a = float((deviations**3).mean()) / spread**3 / len(left_out) ** 0.5
    if abs(a) < 1e-6:
        return t, t
    below, above = (abs(3 / a * (np.cbrt(1 + a * (end - a / 6)) - 1)) for end in (t, -t))
    return max(t, float(below)), max(t, float(above))


def _deviation(values: Values) -> float:
    known = _known(values)
    return float(known.std(ddof=1)) if len(known) > 1 else 0.0


def _known(values: Values) -> Values:
    """The draws in which the measure exists."""
    return values[~np.isnan(values)]
