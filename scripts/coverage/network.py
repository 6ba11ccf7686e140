"""The packaged network as a population: its spikes on some images, from which sets of images are drawn anew."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scripts.coverage.population import Array, Pair
from scripts.evidence.run import BASELINE

from isofire import QuantSpec, quantize_
from isofire.data import load
from isofire.firing import SpikeCounts, observe
from isofire.firing.record import DEFAULT_BLOCKS, run_for
from isofire.models import pretrained

IMAGES = 1000
"""Of the population."""
NEURONS = 400
"""Of each layer, chosen at random."""
SPECS = {
    "weights, 4 bits": {"weights": {"method": "lsq", "bits": 4}},
    "membranes, 4 bits": {"membrane": {"bits": 4, "range": [0, 1], "placement": "post_reset"}},
}


@dataclass(frozen=True, eq=False)
class ImagePopulation:
    """Spikes of both networks on each image.

    Parameters
    ----------
    layers
        Layer -> spikes before and after: float32 [images, neurons] each.
    steps
        Time steps of an image.
    """

    layers: Mapping[str, tuple[NDArray[np.float32], NDArray[np.float32]]]
    steps: int

    @property
    def size(self) -> int:
        """Images of the population."""
        return len(next(iter(self.layers.values()))[0])

    def rates(self) -> dict[str, Pair]:
        """True rates [neurons] before and after: those on all its images."""
        return {
            name: tuple(side.mean(0, dtype=np.float64) / self.steps for side in pair)
            for name, pair in self.layers.items()
        }  # type: ignore[return-value]

    def totals(self, images: int, draws: int, rng: np.random.Generator) -> dict[str, tuple[Array, Array]]:
        """Rates on sets of images drawn with replacement: [draws, neurons] of each layer."""
        times = rng.multinomial(images, np.full(self.size, 1 / self.size), size=draws).astype(np.float32)
        unit = images * self.steps
        return {
            name: tuple((times @ side).astype(np.float64) / unit for side in pair) for name, pair in self.layers.items()
        }  # type: ignore[return-value]

    def recorded(self, images: int, rng: np.random.Generator) -> tuple[SpikeCounts, SpikeCounts]:
        """Both networks on one such set, in the blocks in which a recorder would put it."""
        place = np.arange(images) // run_for(images) % DEFAULT_BLOCKS
        times = np.zeros((DEFAULT_BLOCKS, self.size), dtype=np.float32)
        np.add.at(times, (place, rng.integers(self.size, size=images)), 1)
        per_block = torch.from_numpy(np.bincount(place, minlength=DEFAULT_BLOCKS))
        return tuple(
            SpikeCounts(
                {name: torch.from_numpy((times @ pair[side]).astype(np.int32)) for name, pair in self.layers.items()},
                per_block,
                self.steps,
                run_for(images),
            )
            for side in (0, 1)
        )  # type: ignore[return-value]


def populations(root: Path) -> dict[str, ImagePopulation]:
    """One for each spec, quantized after training, on test images of CIFAR-10 in a folder."""
    data = load("cifar10", "test", root=root).first(IMAGES)
    model = pretrained(BASELINE)
    before = _spikes(model, data)
    found = {}
    for name, settings in SPECS.items():
        quantized = quantize_(copy.deepcopy(model), QuantSpec.from_dict(settings), data.first(128))
        after = _spikes(quantized, data)
        layers = {layer: (before[0][layer], after[0][layer]) for layer in before[0]}
        found[name] = ImagePopulation(layers, before[1])
    return found


def about() -> str:
    """What the population is, in words."""
    return f"{BASELINE} on {IMAGES:,} test images of CIFAR-10, {NEURONS} neurons of each of its layers"


def _spikes(model: torch.nn.Module, data: object) -> tuple[dict[str, NDArray[np.float32]], int]:
    counts = observe(model, data, blocks=IMAGES, run=1).counts  # type: ignore[arg-type]
    rng = np.random.default_rng(0)
    chosen = {name: rng.permutation(counts.n_neurons(name))[:NEURONS] for name in counts.layers}
    kept = {name: counts.counts[name].flatten(1)[:, chosen[name]].numpy().astype(np.float32) for name in counts.layers}
    return kept, counts.steps
