"""A bias for each channel that brings its neurons' rates back.

Weights and membranes of few bits shift whole channels. A constant added to a channel's input current, which a norm's or
a layer's bias holds at no cost (`bias.py` finds which), takes most of it back (layer-wise bias calibration, 2106.06984;
here the rates are matched by running the layer, not by a formula). All channels are searched at once. More current
never lowers a channel's mean rate, so halving finds where that is right, even for a channel that does not fire at all;
small steps from there, or from no shift at all, whichever is nearer, then bring each neuron's rate as near as one
constant can. Where channels act on each other, as those of recurrent neurons, what each found by itself is tried
together, and as much of it is kept as brings the layer nearer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from isofire.quantization.by_firing.objective import firing_error

REACH = 16.0
"""Largest shift looked for, in thresholds."""
_HALVINGS = 14
_STEPS = (0.1, 0.05, 0.025, 0.0125, 0.00625)
_PASSES = 3
_SHARES = (1.0, 0.75, 0.5, 0.25, 0.1)


class Correction(NamedTuple):
    """A shift of each channel's input current, and the error of its neurons' spikes without and with it: `[C]` each."""

    shift: Tensor
    before: Tensor
    after: Tensor


def search_shift(counts: Callable[[Tensor], Tensor], target: Tensor, unit: float) -> Correction:
    """The shift of each channel with the least error found.

    Parameters
    ----------
    counts
        Spikes of each neuron, `[C, P]`, with a shift `[C]` of the input currents.
    target
        `[C, P]`: what they should be.
    unit
        Distance from rest to the threshold; reach and steps are multiples of it.
    """
    none = torch.zeros(len(target), device=target.device)
    before = firing_error(counts(none), target)
    shift, best = _better(none, before, _halve(counts, target, unit * REACH), counts, target)
    for step in _STEPS:
        for _ in range(_PASSES):
            start = best
            for sign in (1.0, -1.0):
                shift, best = _better(shift, best, shift + sign * step * unit, counts, target)
            if torch.equal(start, best):
                break
    return _together(Correction(shift, before, best), counts, target)


def _together(found: Correction, counts: Callable[[Tensor], Tensor], target: Tensor) -> Correction:
    """What is left of it, and its error, when all channels are shifted at once."""
    error = firing_error(counts(found.shift), target)
    if torch.equal(error, found.after):
        return found
    kept = Correction(torch.zeros_like(found.shift), found.before, found.before)
    for share in _SHARES:
        shift = share * found.shift
        error = firing_error(counts(shift), target)
        if error.mean() < kept.after.mean():
            kept = Correction(shift, found.before, error)
    return kept


def _halve(counts: Callable[[Tensor], Tensor], target: Tensor, reach: float) -> Tensor:
    """Where each channel fires as often in all as it should."""
    wanted = target.sum(1)
    low, high = (torch.full((len(target),), sign * reach, device=target.device) for sign in (-1.0, 1.0))
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        enough = counts(middle).sum(1) >= wanted
        low, high = torch.where(enough, low, middle), torch.where(enough, middle, high)
    return (low + high) / 2


def _better(
    shift: Tensor, best: Tensor, tried: Tensor, counts: Callable[[Tensor], Tensor], target: Tensor
) -> tuple[Tensor, Tensor]:
    error = firing_error(counts(tried), target)
    better = error < best
    return torch.where(better, tried, shift), torch.where(better, error, best)
