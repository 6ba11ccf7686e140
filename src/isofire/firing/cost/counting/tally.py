"""What is kept of an inference: spikes of every layer, and what arrived at every place with weights."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

ALL, NONZERO, EVENTS, ACTIVE, DENSE, INPUTS, REAL = range(7)
"""Rows of a call's sums: events times fan-out over all and over non-zero weights, non-zero inputs, synapses with a
non-zero input and weight, all synapses, inputs, synapses with an input that is no sum of events."""


@dataclass
class SiteCall:
    """One operation of one inference, [7, r] with r = 1, or T where its rows are known to be steps.

    Parameters
    ----------
    counted
        Whether what arrived was a sum of events.
    real
        Whether some of it was none.
    by_value
        Whether events were told by values being whole numbers, which by chance others are too.
    static
        Keys of the r inputs, where what they multiply comes from the image alone or is constant; equal keys are equal
        inputs.
    constant
        Whether they depend on nothing, not even on the image.
    inside
        Whether it happened in a neuron, which is given what it works on at each step, or all of it at once.
    again
        Whether all rows see the same but for rounding, as it is known of the place.
    """

    sums: Tensor
    counted: bool
    real: bool
    by_value: bool
    neuron_calls: int
    static: tuple[int, ...] | None
    constant: bool = False
    inside: bool = False
    again: bool = False


@dataclass
class SiteTally:
    """One place with weights: the calls of every image, in their order."""

    fan_in: int
    through: frozenset[str] = frozenset()
    images: list[list[SiteCall]] = field(default_factory=list)


@dataclass
class Lying:
    """How rows lie of which neither axes nor numbers tell it (see `isofire.firing.cost.counting.rows`).

    Parameters
    ----------
    parts
        Places whose rows are parts of an image, whatever their number.
    first, last, steps
        Places that see the same at each step, and whose rows are those of one step after the other, those of one part
        in all steps, or lie as their axes tell.
    """

    parts: set[str] = field(default_factory=set)
    first: set[str] = field(default_factory=set)
    last: set[str] = field(default_factory=set)
    steps: set[str] = field(default_factory=set)


@dataclass
class SpikeTally:
    """Spikes of one layer of neurons, [T] an image; `states` are as many as its neurons, unless it pools them."""

    neurons: int = 0
    states: int = 0
    totals: list[Tensor] = field(default_factory=list)
    calls: list[Tensor] = field(default_factory=list)
