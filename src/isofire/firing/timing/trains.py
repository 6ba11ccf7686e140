"""Distances between two spike trains, and what a table of word pairs says of many of them.

All of it depends on a pair of trains only through the pair's two words, so it is computed once for every pair of words
and weighted with how often that pair occurred: exact, and as cheap for a million trains as for one.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from isofire.errors import DataError, SpecError
from isofire.firing.timing.words import trains


def victor_purpura(first: Tensor, second: Tensor, q: float) -> Tensor:
    """Least cost of turning one spike train into the other (Victor and Purpura 1996).

    Adding or removing a spike costs 1, moving one costs q a step. At q = 0 it is the difference of the counts; from
    q = 2 on, moving never pays, and it is the number of spikes that are not in both. Between them it says how precisely
    spikes keep their time, which EMD, a distance of rates, cannot see.

    Parameters
    ----------
    first, second
        bool [T, ...], of the same shape.
    q
        In 1 / step, >= 0.

    Returns
    -------
    Tensor
        float64 [...].

    Raises
    ------
    SpecError
        If `q` is negative or not finite.
    DataError
        If the shapes differ, or a value is neither 0 nor 1.

    Examples
    --------
    >>> a, b = torch.tensor([True, False, False]), torch.tensor([False, False, True])
    >>> [float(victor_purpura(a, b, q)) for q in (0, 0.5, 1, 2)]
    [0.0, 1.0, 2.0, 2.0]
    """
    if not (q >= 0 and math.isfinite(q)):
        raise SpecError(f"q must be a cost >= 0 a step, got {q}")
    _require_alike(first, second)
    for spikes in (first, second):
        if not bool(((spikes == 0) | (spikes == 1)).all()):
            raise DataError("spike trains are of 0 and 1, got other values; the distance is not defined for counts")
    a, b = first.bool(), second.bool()
    steps = len(a)
    zero = torch.zeros(a.shape[1:], dtype=torch.float64)
    # row[j]: cost of turning the first i steps of `a` into the first j steps of `b`; a step without a spike is free
    row = [zero]
    for j in range(steps):
        row.append(row[-1] + b[j])
    for i in range(steps):
        below = [row[0] + a[i]]
        for j in range(steps):
            best = torch.minimum(row[j + 1] + a[i], below[j] + b[j])
            moved = torch.where(a[i] & b[j], row[j] + q * abs(i - j), math.inf)
            below.append(torch.minimum(best, moved))
        row = below
    return row[-1]


def van_rossum(first: Tensor, second: Tensor, tau: float) -> Tensor:
    """Distance of two spike trains smoothed by a falling exponential (van Rossum 2001, on an endless time axis).

    D^2 = 1/tau * integral of (f - g)^2 dt; a spike more or less makes D^2 = 1/2, a pair far apart 1. Small `tau` asks
    for coincidence, large `tau` for equal counts. Unlike EMD it compares image by image and step by step.

    Parameters
    ----------
    first, second
        [T, ...], spikes or counts.
    tau
        Time constant in steps, > 0.

    Returns
    -------
    Tensor
        float64 [...].

    Raises
    ------
    SpecError
        If `tau` is not positive.
    DataError
        If the shapes differ.
    """
    if not tau > 0:
        raise SpecError(f"tau must be a positive number of steps, got {tau}")
    _require_alike(first, second)
    gap = first.double() - second.double()
    steps = torch.arange(len(gap), dtype=torch.float64)
    kernel = torch.exp(-(steps[:, None] - steps).abs() / tau)
    square = (gap * torch.tensordot(kernel, gap, 1)).sum(0) / 2
    return square.clamp(min=0).sqrt()


def _require_alike(first: Tensor, second: Tensor) -> None:
    if first.shape != second.shape or first.ndim < 1:
        raise DataError(f"spike trains must be two [T, ...] alike, got {[*first.shape]} and {[*second.shape]}")


def first_spikes(spikes: Tensor) -> Tensor:
    """Step of the first spike, int64 [...]; T where there is none.

    Latency is what a network with few steps decides by; rates, and so EMD, do not hold it.

    Parameters
    ----------
    spikes
        [T, ...]
    """
    fired = spikes != 0
    first = fired.to(torch.uint8).argmax(0)
    return torch.where(fired.any(0), first, len(spikes))


def mean_over_pairs(joint: Tensor, values: Tensor) -> float:
    """Mean of a value [2^T, 2^T] of word pairs, as often as they occurred."""
    return float((joint.double() * values).sum() / joint.sum())


def table_of(distance: str, steps: int, parameter: float) -> Tensor:
    """ "victor_purpura" or "van_rossum" between all words, float64 [2^T, 2^T]."""
    every = trains(steps)
    first, second = every[:, :, None].expand(-1, -1, 2**steps), every[:, None, :].expand(-1, 2**steps, -1)
    return {"victor_purpura": victor_purpura, "van_rossum": van_rossum}[distance](first, second, parameter)


def flips(steps: int) -> Tensor:
    """Steps at which two words differ: [2^T, 2^T].

    A spike that is there in one network only. Counted neuron by neuron, image by image and step by step, so nothing
    cancels, whereas EMD is 0 if as many neurons gain a spike as lose one.
    """
    every = trains(steps)
    return (every[:, :, None] != every[:, None, :]).sum(0).double()
