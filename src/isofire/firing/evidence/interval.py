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
neuron, shape and reshuffling in steps of two spikes; their intervals are one step longer on either side, without which
they would be points where every draw happens to give the same.

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
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np

from isofire.errors import DataError, SpecError
from isofire.firing.counts import SpikeCounts
from isofire.firing.evidence.draws import bootstrap, everything, leave_one_out
from isofire.firing.evidence.ranks import Values
from isofire.firing.evidence.resample import Resampled, resample, used_blocks
from isofire.firing.evidence.student import check_level, t_value, z_value
from isofire.firing.measures import Combine, Measure, Quantity, quantities

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
    make = _Maker(level, blocks, drawn, still, baseline.denominator)
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


_Key = tuple[str | None, str]
"""Layer (None: the network) and measure."""


class _Maker:
    """Makes intervals from the draws of all measures, of each layer and of the network (layer None)."""

    def __init__(self, level: float, blocks: int, drawn: Resampled, still: Resampled, denominator: int) -> None:
        self.level, self.blocks, self.drawn, self.denominator = level, blocks, drawn, denominator
        self.t = t_value(level, blocks - 1)
        self.wider = (blocks / (blocks - 1)) ** 0.5
        of_layer = quantities(layer=True).items()
        self.asked: dict[_Key, Quantity] = {(None, name): item for name, item in quantities(layer=False).items()}
        self.asked |= {(layer, name): item for layer in drawn.layers for name, item in of_layer}
        self.values = {(layer, name): drawn.get(name, layer) for layer, name in self.asked}
        self.values |= self._bounds(drawn, 1)
        self.arms = dict(zip(self.values, self._arms(np.stack(list(self.values.values()))), strict=True))
        distance = [key for key, item in self.asked.items() if item.measure.unchanged is not None]
        away = {key: np.abs(still.get(key[1], key[0]) - (self.asked[key].measure.unchanged or 0.0)) for key in distance}
        away |= self._bounds(still, 0)
        self.noise = dict(zip(away, self._noise(np.stack(list(away.values()))), strict=True))

    def __call__(self, name: str, layer: str | None) -> Interval:
        key = layer, name
        asked, estimate = self.asked[key], float(self.values[key][0])
        if math.isnan(estimate):
            return Interval(estimate=estimate, low=estimate, high=estimate, level=self.level, error=estimate)
        (error, below, above), (bottom, top) = self.arms[key], asked.bounds
        step = self._step(asked.measure, layer)
        low, high = max(estimate - below - step, bottom), min(estimate + above + step, top)
        true = (low, high) if asked.measure.mean else self._true(asked, key)
        noise, most = self.noise.get(key, (0.0, 0.0))
        return Interval(
            estimate=estimate, low=low, high=high, level=self.level, error=error, noise=noise,
            resolved=not asked.measure.distance or estimate > most + _TRACE, true_low=true[0], true_high=true[1],
        )  # fmt: skip

    def _step(self, measure: Measure, layer: str | None) -> float:
        if measure.step is None:
            return 0.0
        sizes = self.drawn.neurons
        neurons = float(sizes.sum()) if layer is None else float(sizes[list(self.drawn.layers).index(layer)])
        return (1.0 if measure.step == "neuron" else 2.0 / self.denominator) / neurons

    def _bounds(self, drawn: Resampled, end: int) -> dict[_Key, Values]:
        """Draws of the norms between which measures lie, combined over layers as those are; end 0: the lower ones."""
        return {
            _bound(key, end): drawn.combined(item.measure.between[end], key[0], _norm(item.combine))
            for key, item in self.asked.items()
            if item.measure.between is not None
        }

    def _true(self, asked: Quantity, key: _Key) -> tuple[float, float]:
        """Ends of the range for true rates."""
        if asked.measure.between is None:
            return math.nan, math.nan
        upper = _bound(key, 1)
        most = float(self.values[upper][0]) + self.arms[upper][2]
        if asked.combine == "pooled":
            # opposite shifts of two layers cancel in it
            return 0.0, most
        measured = float(self.drawn.combined(asked.measure.between[0], key[0], asked.combine)[0])
        return min(max(measured - self.noise[_bound(key, 0)][1], 0.0), most), most

    def _arms(self, rows: Values) -> list[tuple[float, float, float]]:
        """Of each row of draws: standard error, and how far its interval reaches below and above the estimate."""
        left_out, boot = rows[:, 1 : self.blocks + 1], rows[:, self.blocks + 1 :]
        with _few_known():
            jackknife = np.sqrt((self.blocks - 1) * np.nanvar(left_out, axis=1))
            error = np.fmax(jackknife, self.wider * np.nanstd(boot, axis=1, ddof=1))
        below, above = skewed(left_out, self.t)
        return [(float(e), float(e * b), float(e * a)) for e, b, a in zip(error, below, above, strict=True)]

    def _noise(self, rows: Values) -> list[tuple[float, float]]:
        """Of each row of draws with unchanged rates: the mean, and the most that is to be expected, of a level."""
        with _few_known():
            mean, most = np.nanmean(rows, axis=1), np.quantile(rows, (1 + self.level) / 2, axis=1)
            for row in np.flatnonzero(np.isnan(rows).any(1) & ~np.isnan(rows).all(1)):
                most[row] = np.nanquantile(rows[row], (1 + self.level) / 2)
        wider = self.wider * self.t / z_value(self.level)
        return [(float(self.wider * a), float(wider * b)) for a, b in zip(mean, most, strict=True)]


def _bound(key: _Key, end: int) -> _Key:
    return key[0], f"{key[1]}, {('lower', 'upper')[end]} bound"


def _norm(how: Combine | None) -> Combine | None:
    """All neurons pooled have the norms of their layers, weighted by neurons."""
    return "neurons" if how == "pooled" else how


@contextmanager
def _few_known() -> Iterator[None]:
    """A measure that exists in no draw is NaN, which needs no warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        yield


def skewed(left_out: Values, t: float) -> tuple[Values, Values]:
    """Half widths below and above, in standard errors: t, or more on a side to which blocks are skewed.

    With a = skewness / root(blocks), Hall's transformation of a standardised mean is x + a x^2 / 3 + a^2 x^3 / 27 +
    a / 6; where it equals -t and t are the ends.

    Parameters
    ----------
    left_out
        Measures without each block in turn [measures, blocks]. Without a block that adds much, a measure is low.
    """
    with _few_known():
        deviations = np.nanmean(left_out, axis=1, keepdims=True) - left_out
        spread = np.sqrt(np.nanmean(deviations**2, axis=1))
        third = np.nanmean(deviations**3, axis=1)
    # blocks that are all alike have no skewness; below 1e-6 it makes no difference, and none can be divided by
    flat = ~(spread > _TRACE)
    a = np.where(flat, 0.0, third) / np.where(flat, 1.0, spread) ** 3 / left_out.shape[1] ** 0.5
    a = np.where(np.abs(a) < 1e-6, 1e-6, a)
    below, above = (np.abs(3 / a * (np.cbrt(1 + a * (end - a / 6)) - 1)) for end in (t, -t))
    return np.maximum(below, t), np.maximum(above, t)
