"""How far the runs of one setting differ by their seeds, beside what images leave open.

A setting of k seeds is judged by its mean. Two things move it: other images would have given other values to every
seed, and other seeds (other calibration images, another training) give other networks. The first is known from each
run's interval over images; the second must be learned from few seeds. From two seeds alone Student's t has one degree
of freedom: 12.7 standard errors, by which two runs that both keep would be undecided together. But a sweep has many
settings with as many seeds, and in units of each setting's own interval over images their spreads are alike. So they
are pooled, as ANOVA pools the variance within groups and Smyth (2004, "Linear Models and Empirical Bayes Methods",
Statistical Applications in Genetics and Molecular Biology 3) that of genes of few replicates.

- Nothing is borrowed downwards: a setting whose own spread is larger than the pooled one keeps its own.
- A setting whose spread is no chance beside the others' (F test at 0.1 %), such as one of which a training diverged, is
  not pooled and is judged by Student's t of its own seeds alone.
- Images and seeds add up as independent errors do, by their squares. Seeds are tested on the same images, so the mean
  interval over images is not divided by the root of k. Where their errors are not common the interval is too wide.

How often such intervals hold the mean over all seeds and images: docs/evidence.md, `scripts/coverage/seeds.py`.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from scipy.special import fdtri, gammaincinv

from isofire.firing.evidence.interval import Interval
from isofire.firing.evidence.student import LEVEL, t_value

_ODD = 0.001
"""Chance of a setting like the others to be called unlike them."""


@dataclass(frozen=True, kw_only=True)
class SeedSpread:
    """What settings of a sweep have in common.

    Parameters
    ----------
    ratio
        Standard deviation over seeds ÷ half an interval over images.
    freedom
        Degrees of freedom that it is known by.
    """

    ratio: float
    freedom: int


def seed_spread(settings: Sequence[Sequence[Interval]]) -> SeedSpread | None:
    """Pool the spread over seeds of settings, each a sequence of its runs' intervals; None if none has two runs.

    Examples
    --------
    >>> runs = [Interval(estimate=x, low=x - 1, high=x + 1, level=0.95, error=0.5) for x in (4.0, 6.0)]
    >>> seed_spread([runs]), seed_spread([runs[:1]])
    (SeedSpread(ratio=1.4142135623730951, freedom=1), None)
    """
    found = [(_variance(parts) / half**2, len(parts) - 1) for parts in settings if len(parts) > 1
             if (half := _half(parts)) > 0]  # fmt: skip
    if not found:
        return None
    if len(found) > 2:
        # the median does not move with a few that are unlike the others
        middle = statistics.median(value / (2 * gammaincinv(free / 2, 0.5) / free) for value, free in found)
        common = SeedSpread(ratio=math.sqrt(middle), freedom=sum(free for _, free in found))
        found = [(value, free) for value, free in found if not _odd(value, free, common)] or found
    freedom = sum(free for _, free in found)
    return SeedSpread(ratio=math.sqrt(sum(value * free for value, free in found) / freedom), freedom=freedom)


def over_seeds_and_images(parts: Sequence[Interval], pooled: SeedSpread | None = None) -> Interval:
    """The mean of one setting's runs, with what other seeds and other images would change.

    Of one run: its own interval, which says nothing of other seeds. Where images give no interval, Student's t over
    the seeds stands alone.
    """
    if len(parts) == 1:
        return parts[0]
    n, estimate = len(parts), statistics.fmean(part.estimate for part in parts)
    below = statistics.fmean(part.estimate - part.low for part in parts)
    above = statistics.fmean(part.high - part.estimate for part in parts)
    variance, half, free = _variance(parts), _half(parts), n - 1
    if pooled is not None and half > 0 and not _odd(variance / half**2, free, pooled):
        variance, free = max(variance, (pooled.ratio * half) ** 2), max(pooled.freedom, free)
    error = math.sqrt(variance / n)
    seeds = t_value(LEVEL, free) * error
    if math.isnan(half):
        below = above = 0.0
    return Interval(
        estimate=estimate, low=estimate - math.hypot(seeds, below), high=estimate + math.hypot(seeds, above),
        level=LEVEL, error=error, noise=statistics.fmean(part.noise for part in parts),
    )  # fmt: skip


def over_images(parts: Sequence[Interval]) -> Interval:
    """The mean of one setting's runs as if no seed changed anything: what images alone leave open."""
    mean = [statistics.fmean(getattr(part, key) for part in parts) for key in ("estimate", "low", "high", "noise")]
    return Interval(estimate=mean[0], low=mean[1], high=mean[2], level=LEVEL, error=math.nan, noise=mean[3])


def _odd(value: float, free: int, pooled: SeedSpread) -> bool:
    """Whether a spread (a variance in units of half intervals squared) is no chance beside the pooled one."""
    return value > pooled.ratio**2 * fdtri(free, pooled.freedom, 1 - _ODD)


def _variance(parts: Sequence[Interval]) -> float:
    return statistics.variance(part.estimate for part in parts)


def _half(parts: Sequence[Interval]) -> float:
    return statistics.fmean((part.high - part.low) / 2 for part in parts)
