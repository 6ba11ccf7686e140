"""Two networks whose true rates are known, and recordings of both on images drawn anew.

An image belongs to one of a few classes, all equally frequent. A neuron fires in each of its slots (steps, times the
spikes that a step can hold) with the probability that its class has for it. So what an image does to many neurons, and
to both networks, is in it; and the spikes of many images of one class are one binomial number, so that 10,000 images
cost no more than 50.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from isofire.firing import SpikeCounts
from isofire.firing.record import DEFAULT_BLOCKS, run_for

Array = NDArray[np.float64]
Counts = NDArray[np.int64]
Pair = tuple[Array, Array]


@dataclass(frozen=True, kw_only=True, eq=False)
class Population:
    """Unlimited images and what two networks do on them.

    Parameters
    ----------
    layers
        Layer -> probability of a spike in a slot before and after: float64 [neurons, classes of images] each.
    common
        Whether chance is the same in both networks (as it mostly is for a mild quantizer) or each has its own.
    steps, spikes
        Time steps of an image, and the most spikes in one of them.
    """

    layers: Mapping[str, Pair]
    common: bool = True
    steps: int = 4
    spikes: int = 1

    def rates(self) -> dict[str, Pair]:
        """True rates [neurons] before and after, in spikes per neuron per step."""
        return {
            name: (self.spikes * before.mean(1), self.spikes * after.mean(1))
            for name, (before, after) in self.layers.items()
        }

    def totals(self, images: int, draws: int, rng: np.random.Generator) -> dict[str, tuple[Array, Array]]:
        """Rates as measured on so many images, drawn anew each time: float64 [draws, neurons] of each layer."""
        classes = self._classes(np.full(draws, images), rng)
        unit = images * self.steps
        return {name: (first / unit, second / unit) for name, (first, second) in self._spikes(classes, rng).items()}

    def recorded(self, images: int, rng: np.random.Generator) -> tuple[SpikeCounts, SpikeCounts]:
        """Both networks on the same images, in the blocks in which a recorder would put them."""
        place = np.arange(images) // run_for(images) % DEFAULT_BLOCKS
        per_block = np.bincount(place, minlength=DEFAULT_BLOCKS)
        spikes = self._spikes(self._classes(per_block, rng), rng)
        return tuple(
            SpikeCounts(
                {name: torch.from_numpy(pair[side].astype(np.int32)) for name, pair in spikes.items()},
                torch.from_numpy(per_block),
                self.steps,
                run_for(images),
            )
            for side in (0, 1)
        )  # type: ignore[return-value]

    def _classes(self, images: Counts, rng: np.random.Generator) -> Counts:
        """How many of the images of each row are of each class: [rows, classes]."""
        classes = next(iter(self.layers.values()))[0].shape[1]
        return rng.multinomial(images, np.full(classes, 1 / classes))

    def _spikes(self, classes: Counts, rng: np.random.Generator) -> dict[str, tuple[Counts, Counts]]:
        """Spikes of both networks: int64 [rows, neurons] of each layer."""
        return {name: self._layer(before, after, classes, rng) for name, (before, after) in self.layers.items()}

    def _layer(self, before: Array, after: Array, classes: Counts, rng: np.random.Generator) -> tuple[Counts, Counts]:
        first, second = (np.zeros((len(classes), len(before)), dtype=np.int64) for _ in range(2))
        for of_class, p, q in zip(classes.T, before.T, after.T, strict=True):
            slots = (of_class * self.steps * self.spikes)[:, None]
            a, b = (_coupled if self.common else _independent)(slots, p, q, rng)
            first += a
            second += b
        return first, second


def _independent(slots: Counts, p: Array, q: Array, rng: np.random.Generator) -> tuple[Counts, Counts]:
    return rng.binomial(slots, p), rng.binomial(slots, q)


def _coupled(slots: Counts, p: Array, q: Array, rng: np.random.Generator) -> tuple[Counts, Counts]:
    """A slot with a uniform number below both probabilities holds a spike in both networks, one between them in one."""
    low, high = np.minimum(p, q), np.maximum(p, q)
    both = rng.binomial(slots, low)
    rest = np.divide(high - low, 1 - low, out=np.zeros_like(low), where=low < 1)
    more = both + rng.binomial(slots - both, np.minimum(rest, 1.0))
    return np.where(p <= q, both, more), np.where(p <= q, more, both)
