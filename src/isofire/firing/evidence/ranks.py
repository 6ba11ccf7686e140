"""Spearman's rank correlation of many draws."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from isofire.firing.distance import average_ranks

Values = NDArray[np.float64]


def rank_correlation(
    a: NDArray[np.intp], b: NDArray[np.intp], below_a: NDArray[np.int64], below_b: NDArray[np.int64]
) -> float:
    """Spearman's rank correlation from counts and their cumulated histograms."""
    ranks_a, square_a = _ranks(below_a)
    ranks_b, square_b = _ranks(below_b)
    if square_a <= 0 or square_b <= 0:
        return float("nan")
    return float((ranks_a[a] * ranks_b[b]).sum() / np.sqrt(square_a * square_b))


def rank_correlations(a: NDArray[Any], b: NDArray[Any]) -> Values:
    """Spearman's rank correlation of each row; NaN where all values of one side are equal."""
    first, second = (average_ranks(rows) - (rows.shape[1] + 1) / 2 for rows in (a, b))
    size = np.sqrt((first**2).sum(1) * (second**2).sum(1))
    return np.divide((first * second).sum(1), size, out=np.full(len(size), np.nan), where=size > 0)


def _ranks(below: NDArray[np.int64]) -> tuple[Values, float]:
    """Centred average rank of each count, and the sum over neurons of its square."""
    here = np.diff(below, prepend=0)
    ranks = below - (here - 1) / 2 - (below[-1] + 1) / 2
    return ranks, float((ranks * ranks * here).sum())
