"""How often intervals hold what they are for, cell by cell."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from scripts.coverage import truth
from scripts.coverage.population import Array, Pair

from isofire.firing import SpikeCounts
from isofire.firing.evidence import drift_intervals

RESAMPLES = 60
"""Bootstrap draws: the standard error that they give is off by a tenth, which is part of what is tried."""
_SAFE = 1e-9


class Sampled(Protocol):
    """A population of images: true rates, rates on sets of images, and recordings of sets."""

    def rates(self) -> dict[str, Pair]: ...
    def totals(self, images: int, draws: int, rng: np.random.Generator) -> dict[str, tuple[Array, Array]]: ...
    def recorded(self, images: int, rng: np.random.Generator) -> tuple[SpikeCounts, SpikeCounts]: ...


@dataclass(frozen=True)
class Cell:
    """One scenario at one number of images.

    Parameters
    ----------
    scenario, images, simulations
        What was simulated, on how many images, how often.
    coverage
        Measure -> share of simulations in which its interval held its mean over sets of as many images.
    of_true
        EMD -> share in which the range for true rates held it.
    width
        Measure -> mean half width of its interval.
    expected
        Measure -> the mean that it should hold.
    resolved
        EMD -> share in which unchanged rates were ruled out.
    """

    scenario: str
    images: int
    simulations: int
    coverage: dict[str, float]
    of_true: dict[str, float]
    width: dict[str, float]
    expected: dict[str, float]
    resolved: dict[str, float]


def cover(
    scenario: str, population: Sampled, images: int, simulations: int, *, ranks: bool = False, draws: int = truth.DRAWS
) -> Cell:
    """Simulate one cell; simulation number k has seed k."""
    wanted, true = truth.expected(population, images, draws), truth.true_emds(population)
    if not ranks:
        wanted.pop("spearman")
    hits: dict[str, list[Any]] = defaultdict(list)
    of_true: dict[str, list[Any]] = defaultdict(list)
    widths: dict[str, list[Any]] = defaultdict(list)
    resolved: dict[str, list[Any]] = defaultdict(list)
    for seed in range(simulations):
        pair = population.recorded(images, np.random.default_rng(seed))
        found = drift_intervals(*pair, resamples=RESAMPLES, seed=seed, ranks=ranks).overall
        for key, value in wanted.items():
            interval = found[key]
            hits[key].append(interval.low - _SAFE <= value <= interval.high + _SAFE)
            widths[key].append(interval.half_width)
        for key, value in true.items():
            of_true[key].append(found[key].true_low - _SAFE <= value <= found[key].true_high + _SAFE)
            resolved[key].append(found[key].resolved)
    return Cell(
        scenario, images, simulations, _means(hits), _means(of_true), _means(widths),
        {key: float(f"{value:.6g}") for key, value in wanted.items()}, _means(resolved),
    )  # fmt: skip


def _means(values: dict[str, list[Any]]) -> dict[str, float]:
    return {key: float(f"{np.mean(item):.6g}") for key, item in values.items()}
