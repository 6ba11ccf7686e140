"""What the intervals should hold, computed apart from the product: by sorting, counting and ranking rates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import rankdata
from scripts.coverage.population import Array, Pair

if TYPE_CHECKING:
    from scripts.coverage.study import Sampled

DRAWS = 3000
_SAFE = 1e-9


def measures(layers: Mapping[str, Pair]) -> dict[str, Array]:
    """Measures of a whole network [draws], from rates [draws, neurons] of each layer before and after."""
    each = [_layer(before, after) for before, after in layers.values()]
    sizes = np.array([before.shape[1] for before, _ in layers.values()], dtype=np.float64)
    found = {key: sum(w * layer[key] for w, layer in zip(sizes / sizes.sum(), each, strict=True)) for key in each[0]}
    emds = np.stack([layer["emd"] for layer in each])
    everyone = [np.concatenate([pair[side] for pair in layers.values()], 1) for side in (0, 1)]
    found["emd_weighted"] = found.pop("emd")
    found |= {"emd_layer_mean": emds.mean(0), "emd_max": emds.max(0), "emd_pooled": _emd(*everyone)}
    return found  # type: ignore[return-value]


def expected(population: Sampled, images: int, draws: int = DRAWS, seed: int = 99) -> dict[str, float]:
    """Mean of every measure over sets of so many images."""
    drawn = measures(population.totals(images, draws, np.random.default_rng(seed)))
    return {key: float(np.nanmean(values)) for key, values in drawn.items()}


def true_emds(population: Sampled) -> dict[str, float]:
    """EMDs of true rates."""
    rates = {name: (before[None], after[None]) for name, (before, after) in population.rates().items()}
    return {key: float(value[0]) for key, value in measures(rates).items() if key.startswith("emd")}


def _layer(before: Array, after: Array) -> dict[str, Array]:
    change = after.mean(1) - before.mean(1)
    emd, paired = _emd(before, after), np.abs(after - before).mean(1)
    found = {"mfr": after.mean(1), "mfr_change": change, "shift": np.abs(change), "emd": emd, "paired_mae": paired}
    found |= {"shape": emd - found["shift"], "reshuffle": paired - emd, "spearman": _spearman(before, after)}
    for name, cut in (("dead_00", _SAFE), ("dead_01", 0.01 - _SAFE), ("dead_05", 0.05 - _SAFE)):
        found[name] = (after < cut).mean(1)
        found[f"{name}_change"] = found[name] - (before < cut).mean(1)
    return found


def _emd(before: Array, after: Array) -> Array:
    return np.abs(np.sort(before, 1) - np.sort(after, 1)).mean(1)


def _spearman(before: Array, after: Array) -> Array:
    first, second = (rankdata(side, axis=1) - (side.shape[1] + 1) / 2 for side in (before, after))
    size = np.sqrt((first**2).sum(1) * (second**2).sum(1))
    return np.divide((first * second).sum(1), size, out=np.full(len(size), np.nan), where=size > 0)
