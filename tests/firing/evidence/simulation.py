"""Recordings of Bernoulli neurons whose true rates are known."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from isofire.firing import SpikeCounts

Rates = NDArray[np.float64]


def two_networks(neurons: int = 60, seed: int = 7) -> dict[str, tuple[Rates, Rates]]:
    """Layer -> true rates before and after: all higher, each its own way, all lower."""
    rng = np.random.default_rng(seed)
    rates = 0.6 * rng.beta(0.5, 5, neurons)
    return {
        "up": (rates, np.clip(1.3 * rates, 0, 0.6)),
        "spread": (rates, np.clip(rates * rng.uniform(0.5, 1.5, neurons), 0, 0.6)),
        "down": (rates, 0.7 * rates),
    }


def recorded(
    truth: dict[str, tuple[Rates, Rates]],
    rng: np.random.Generator,
    *,
    blocks: int = 20,
    per_block: int = 10,
    steps: int = 4,
    images: float = 0.6,
    common: bool = True,
) -> tuple[SpikeCounts, SpikeCounts]:
    """Both networks on the same images.

    `images` is how much an image raises or lowers all rates at most, so neurons of one image are not independent;
    `common`: whether the chance of a spike is the same in both networks, as it mostly is for a mild quantizer.
    """
    total = blocks * per_block
    factor = rng.uniform(1 - images, 1 + images, (total, 1, 1))
    before, after = {}, {}
    for name, (first, second) in truth.items():
        chance = rng.random((total, steps, len(first)), dtype=np.float32)
        other = chance if common else rng.random(chance.shape, dtype=np.float32)
        for counts, hit in ((before, chance < factor * first), (after, other < factor * second)):
            sums = hit.reshape(blocks, per_block * steps, -1).sum(1, dtype=np.int32)
            counts[name] = torch.from_numpy(sums)
    images_per_block = torch.full((blocks,), per_block)
    return SpikeCounts(before, images_per_block, steps), SpikeCounts(after, images_per_block, steps)
