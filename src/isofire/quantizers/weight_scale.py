"""The scale of the weights before a layer of neurons, as its membranes see it."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class WeightScale(NamedTuple):
    """What one unit of a weight's integer is worth in the stored potential.

    A neuron charges H = leak V + gain X, its currents X being sums of weight integers times a step (and a bias). With V
    kept in units of step gain / leak, H / (step gain) is a sum of integers too: no multiplier is needed.

    Parameters
    ----------
    step
        `[C]` float64: that unit of V for each channel, a norm between weights and neurons included.
    largest
        Largest integer that weights have with both signs.
    unit
        gain / leak: V in units of the currents.
    """

    step: Tensor
    largest: int
    unit: float
