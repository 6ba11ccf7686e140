"""The weights that places multiply with: how many they read, and what a model stores of them beside its parameters."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor

from isofire.firing.cost.following.numbers import numbers_in, once
from isofire.firing.cost.following.trace import Trace


class MadeWeights:
    """Of one network, as its forward passes show.

    Parameters
    ----------
    trace
        That follows them.

    Attributes
    ----------
    stored
        Of each of the weights, names of the model's tensors that it is, or is made of.
    unnamed
        Place -> shape -> number of weights in it that no tensor of the model makes, and of those that are not 0.
    """

    def __init__(self, trace: Trace) -> None:
        self._trace = trace
        self.stored: set[frozenset[str]] = set()
        self.unnamed: dict[str, dict[tuple[int, ...], tuple[int, int]]] = {}
        self._read: dict[str, dict[Any, int]] = {}

    def read(self, site: str) -> int:
        """How many numbers a place reads as weights; made anew at each step they are the same."""
        return sum(self._read.get(site, {}).values())

    def see(self, weights: Iterable[tuple[str, Tensor | None]]) -> None:
        """Of one forward pass: places, and what each multiplies with."""
        for site, weight in weights:
            if weight is None:
                continue
            whole, names = self._trace.whole(weight), self._trace.made_of(weight)
            layout = (*whole.shape,), whole.stride(), whole.storage_offset()
            seen = self._read.setdefault(site, {})
            if (names, layout) in seen:
                continue
            seen[names, layout] = numbers_in(once(whole))
            self.stored.add(names)
            # a state at rest is nothing
            if not names and bool(whole.any()):
                held = once(whole.detach())
                self.unnamed.setdefault(site, {})[layout[0]] = numbers_in(held), int(held.count_nonzero())
