"""Distances between the firing rates of two networks: pure functions on rates or counts.

For rates r (baseline) and r' of the same n neurons, with W1 their earth mover's distance,

    |mean r - mean r'|  <=  W1  <=  (1/n) sum |r_i - r'_i|

because every transport moves the mean, and leaving each neuron where it is is one transport. `decompose` splits the
right side along this chain. W1 alone cannot see a permutation: shuffled neurons have W1 = 0.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from operator import index
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from isofire.errors import DataError
from isofire.firing.counts import SpikeCounts
from isofire.firing.rates import RateLike, as_rate_pair, as_rates
from isofire.neurons import native

_SPARE_LEVELS = 2**20
_WORTH_A_THREAD = 50_000
_WORTH_BUCKETS = 50_000
"""Neurons from which on only parts are sorted."""


class Drift(NamedTuple):
    """The mean absolute rate change of a layer, in three parts that add up to it (spikes per neuron per step).

    shift
        |change of the mean rate|: all neurons moved alike.
    shape
        EMD - shift: the distribution changed its form.
    reshuffle
        Mean absolute change - EMD: neurons swapped places within the distribution.
    """

    shift: float
    shape: float
    reshuffle: float


def emd(a: RateLike | SpikeCounts, b: RateLike | SpikeCounts, layer: str | None = None) -> float:
    """Exact earth mover's distance (Wasserstein-1) between two populations of rates.

    Parameters
    ----------
    a, b
        Rates [n] and [m] in spikes per neuron per step, or recordings; n and m may differ.
    layer
        The layer of two recordings; None throws all of their neurons together (`emd_pooled`). What `isofire.compare`
        reports first, `emd_weighted`, is the mean of the layers' distances weighted by their neurons; their plain mean,
        `isofire.firing.layer_mean`, is `emd_layer_mean`.

    Returns
    -------
    float
        In spikes per neuron per step: the integral of the absolute difference of the two distribution functions. From
        50,000 neurons on rates are not all sorted, and it is rounded by up to 1e-9 of itself.

    Raises
    ------
    DataError
        If a population is empty, not 1-D, negative, or not finite.
    SpecError
        If the recordings have no such layer, or a layer is named for plain rates.

    Examples
    --------
    >>> emd([0.0, 0.5, 1.0], [0.25, 0.5, 1.0])
    0.08333333333333333
    """
    if isinstance(a, SpikeCounts) and isinstance(b, SpikeCounts):
        # in whole numbers, where plain rates have been rounded
        return emd_from_counts(a.per_neuron(layer), b.per_neuron(layer), a.denominator, b.denominator)
    first, second = as_rates(a, "a", layer), as_rates(b, "b", layer)
    if min(first.size, second.size) >= _WORTH_BUCKETS and native.built():
        found = native.emd(first, second)
        if found is not None:
            return found
    first, second = _both_sorted(first, second)
    if first.size == second.size:
        return float(np.abs(first - second).mean())
    values = np.sort(np.concatenate([first, second]))
    below_first = np.searchsorted(first, values[:-1], side="right") / first.size
    below_second = np.searchsorted(second, values[:-1], side="right") / second.size
    return float((np.abs(below_first - below_second) * np.diff(values)).sum())


def _both_sorted(a: NDArray[np.float64], b: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Each by itself, at the same time where that pays and threads are allowed: numpy sorts without Python's lock."""
    if min(a.size, b.size) < _WORTH_A_THREAD or torch.get_num_threads() < 2:
        return np.sort(a), np.sort(b)
    with ThreadPoolExecutor(1) as other:
        second = other.submit(np.sort, b)
        return np.sort(a), second.result()


def emd_from_counts(
    a: torch.Tensor | NDArray[np.integer],
    b: torch.Tensor | NDArray[np.integer],
    denominator_a: int,
    denominator_b: int | None = None,
) -> float:
    """`emd(a / denominator_a, b / denominator_b)`, in whole numbers where both counts share a denominator.

    Counts out of D = T * images are rates on a grid of step 1 / D, so the distribution functions are cumulated
    histograms and their distance is a sum of integers: no sorting, no rounding but the last division.

    Parameters
    ----------
    a, b
        Spikes per neuron: integers [n] and [m], >= 0; above the denominator where a neuron fires several a step.
    denominator_a, denominator_b
        T * images behind each; the second is as the first if left out.

    Raises
    ------
    DataError
        If a population is empty, not 1-D, negative or not of an integer type, or a denominator is no whole number >= 1.

    Examples
    --------
    >>> emd_from_counts(torch.tensor([0, 4, 8]), torch.tensor([2, 4, 8]), 8)
    0.08333333333333333
    """
    denominator_b = denominator_a if denominator_b is None else denominator_b
    try:
        denominator_a, denominator_b = index(denominator_a), index(denominator_b)
    except TypeError:
        raise DataError(
            f"denominators must be T * images, whole numbers, got {denominator_a!r} and {denominator_b!r}"
        ) from None
    if denominator_a < 1 or denominator_b < 1:
        raise DataError(f"denominators must be T * images >= 1, got {denominator_a} and {denominator_b}")
    first, second = _as_counts(a, "a"), _as_counts(b, "b")
    # a histogram far longer than the populations would cost more memory and time than sorting them
    most = 8 * (first.size + second.size) + _SPARE_LEVELS
    histograms = _histograms(first, second, denominator_a, most) if denominator_a == denominator_b else None
    if histograms is None:
        return emd(first / denominator_a, second / denominator_b)
    if first.size == second.size:
        work = int(np.abs(np.cumsum(histograms[0] - histograms[1])).sum())
        return work / (denominator_a * first.size)
    gap = np.cumsum(histograms[0] * second.size - histograms[1] * first.size)
    # floats here: the sum of up to n * m * D whole numbers can leave int64
    return float(np.abs(gap).astype(np.float64).sum()) / (float(first.size) * second.size * denominator_a)


def _histograms(
    first: NDArray[np.integer], second: NDArray[np.integer], denominator: int, most: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
    """How many neurons have each count; None if that takes more than `most` levels."""
    if denominator < most and native.built():
        # a neuron that fires once a step at most has no count above the denominator
        found = [native.histogram(torch.from_numpy(counts), denominator + 1) for counts in (first, second)]
        if found[0] is not None and found[1] is not None:
            return found[0].numpy(), found[1].numpy()
    _check_counts(first, "a")
    _check_counts(second, "b")
    levels = int(max(first.max(), second.max())) + 1
    if levels > most:
        return None
    return np.bincount(first, minlength=levels), np.bincount(second, minlength=levels)


def paired_mae(a: RateLike | SpikeCounts, b: RateLike | SpikeCounts, layer: str | None = None) -> float:
    """Mean absolute rate change of the same neurons, in spikes per neuron per step; of recordings as `emd`.

    Raises
    ------
    DataError
        If `a` and `b` are not rates of the same neurons.
    """
    first, second = as_rate_pair(a, b, layer)
    return float(np.abs(first - second).mean())


def decompose(a: RateLike | SpikeCounts, b: RateLike | SpikeCounts, layer: str | None = None) -> Drift:
    """Split the mean absolute rate change of the same neurons into shift, shape and reshuffle; recordings as in `emd`.

    Raises
    ------
    DataError
        If `a` and `b` are not rates of the same neurons.

    Examples
    --------
    >>> decompose([0.0, 0.5], [0.5, 0.0])  # two neurons swapped: the EMD is 0
    Drift(shift=0.0, shape=0.0, reshuffle=0.5)
    """
    first, second = as_rate_pair(a, b, layer)
    shift, distance, change = abs(float((first - second).mean())), emd(first, second), paired_mae(first, second)
    rounding = 1e-12 * max(first.max(), second.max())
    return Drift(shift, _positive(distance - shift, rounding), _positive(change - distance, rounding))


def spearman(a: RateLike | SpikeCounts, b: RateLike | SpikeCounts, layer: str | None = None) -> float:
    """Spearman's rank correlation of the same neurons' rates, from -1 to 1; equal rates share their average rank.

    Of recordings as `emd`.

    Returns
    -------
    float
        NaN if all rates of `a`, or all of `b`, are equal (one neuron, a silent layer): there is no order to compare.

    Raises
    ------
    DataError
        If `a` and `b` are not rates of the same neurons.

    Examples
    --------
    >>> round(spearman([0.1, 0.2, 0.3], [0.1, 0.2, 0.9]), 12)
    1.0
    """
    first, second = as_rate_pair(a, b, layer)
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return float("nan")
    # centred, so that no large constant eats the precision of the correlation
    ranks, others = (average_ranks(values) - (values.size + 1) / 2 for values in (first, second))
    # sums, not dot products: BLAS threads cost more than they bring here, and numpy's sums round less
    return float((ranks * others).sum() / np.sqrt((ranks * ranks).sum() * (others * others).sum()))


def average_ranks(values: NDArray[Any]) -> NDArray[np.float64]:
    """Rank of each value along the last axis, from 1; equal values share their average rank.

    That of `scipy.stats.rankdata`, which takes as long to import as all of isofire.

    Examples
    --------
    >>> average_ranks(np.array([0.5, 0.1, 0.5])).tolist()
    [2.5, 1.0, 2.5]
    """
    order = values.argsort(-1, kind="stable")
    ordered = np.take_along_axis(values, order, -1)
    begins = np.ones(values.shape, dtype=bool)
    begins[..., 1:] = ordered[..., 1:] != ordered[..., :-1]
    # of each group of equal values: where it begins in its row, and how many they are
    at = begins.reshape(-1).nonzero()[0]
    size = np.diff(at, append=values.size)
    ranks = np.empty(values.shape)
    average = at % max(values.shape[-1], 1) + (size + 1) / 2
    np.put_along_axis(ranks, order, np.repeat(average, size).reshape(values.shape), -1)
    return ranks


def _as_counts(values: torch.Tensor | NDArray[np.integer], name: str) -> NDArray[np.integer]:
    """Whole numbers [n], int32 or int64, that may be negative still."""
    array = values.detach().cpu().numpy() if isinstance(values, torch.Tensor) else np.asarray(values)
    if array.ndim != 1 or array.size == 0 or not np.issubdtype(array.dtype, np.integer):
        raise DataError(f"{name} must be integers [n] with n >= 1, got {array.dtype} {list(array.shape)}")
    return np.ascontiguousarray(array if array.dtype in (np.int32, np.int64) else array.astype(np.int64))


def _check_counts(counts: NDArray[np.integer], name: str) -> None:
    if counts.min() < 0:
        raise DataError(f"{name} must not be negative, got {counts.min()} at neuron {int(counts.argmin())}")


def _positive(value: float, rounding: float) -> float:
    """0 for a value that only rounding made negative."""
    return 0.0 if -rounding <= value < 0 else value
