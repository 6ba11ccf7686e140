"""The earth mover's distance of two sets of rates."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import scipy.stats
import torch

import isofire
from benchmarks.cases.base import Case
from benchmarks.measure import Rows
from benchmarks.networks import Given

NEURONS, IMAGES = 1_000_000, 40_000


def distance(given: Given) -> Rows:
    """A million rates, as floats and as counts."""
    generator = np.random.default_rng(0)
    a, b = (generator.binomial(IMAGES, generator.beta(1, 8, NEURONS)) for _ in range(2))
    rates = [x / IMAGES for x in (a, b)]
    tensors, counts = [torch.from_numpy(x) for x in rates], [torch.from_numpy(x) for x in (a, b)]
    rows = Rows(run={"scipy": lambda: scipy.stats.wasserstein_distance(*rates)})
    rows.add("POT", lambda: _pot(*rates), same=False)
    rows.add("isofire, rates", lambda: lambda: isofire.emd(*tensors), same=False)
    count = isofire.firing.emd_from_counts
    rows.add("isofire, counts", lambda: lambda: count(*counts, IMAGES, IMAGES), same=False)
    found = {name: float(run()) for name, run in rows.run.items()}
    assert max(found.values()) - min(found.values()) < 1e-12, found
    return rows


def _pot(a: np.ndarray, b: np.ndarray) -> Callable[[], float]:
    import ot

    return lambda: ot.wasserstein_1d(a, b)


CASES = (
    Case(
        "emd",
        f"Exact EMD of two sets of {NEURONS:,} rates (counts out of {IMAGES:,}); base: "
        "scipy.stats.wasserstein_distance.",
        distance,
    ),
)
