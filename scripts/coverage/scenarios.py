"""Populations of images and networks on which intervals are tried: what a quantizer may do to rates."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from scripts.coverage.population import Array, Population

NEURONS = 40
TOP = 0.6
"""Highest rate: an image raises it by two thirds at most."""
LEVELS = np.array([0.4, 1.0, 1.6])
"""What an image does to all rates alike."""


def rates_of(neurons: int = NEURONS, seed: int = 7) -> Array:
    """Many neurons that fire seldom, few that fire often."""
    return TOP * np.random.default_rng(seed).beta(0.5, 5, neurons)


def _seen(rates: Array, levels: Array = LEVELS) -> Array:
    """Every neuron follows the images' levels."""
    return rates[:, None] * levels


def _selective(rates: Array, seed: int = 3) -> Array:
    """Every neuron answers to images of its own."""
    order = np.random.default_rng(seed).permuted(np.tile([0.1, 0.5, 0.9, 1.1, 1.6, 1.8], (len(rates), 1)), axis=1)
    return rates[:, None] * order


def _same(
    change: Callable[[Array], Array], rates: Array | None = None, layers: int = 3, **options: bool | int
) -> Population:
    """The same change in each of several layers."""
    pairs = {}
    for layer in range(layers):
        before = rates_of(seed=7 + layer) if rates is None else rates
        pairs[f"layer{layer}"] = (_seen(before), _seen(np.clip(change(before), 0, TOP)))
    return Population(layers=pairs, **options)  # type: ignore[arg-type]


def _one(change: Callable[[Array], Array], still: int = 2, **options: bool | int) -> Population:
    """A change in one layer of several."""
    rates = rates_of()
    pairs = {"drifts": (_seen(rates), _seen(np.clip(change(rates), 0, TOP)))}
    pairs |= {f"still{layer}": (_seen(rates), _seen(rates)) for layer in range(still)}
    return Population(layers=pairs, **options)  # type: ignore[arg-type]


def _spread(rates: Array) -> Array:
    return rates * np.random.default_rng(1).uniform(0.5, 1.5, len(rates))


def _apart(rates: Array) -> Array:
    return rates + 0.02 * np.sign(rates - np.median(rates))


def _half(rates: Array, low: float, high: float) -> Array:
    return np.where(np.arange(len(rates)) % 2, low, high)


def _permuted(selective: bool, common: bool) -> Population:
    rates = rates_of()
    other = np.random.default_rng(2).permutation(rates)
    see = _selective if selective else _seen
    return Population(layers={"layer": (see(rates), see(other))}, common=common)


def _dying(rates: Array) -> Array:
    return np.where(np.arange(len(rates)) % 3 == 0, 0.1 * rates, rates)


def _several() -> Population:
    rates = rates_of() / TOP * 0.55
    return Population(layers={"layer": (_seen(rates), _seen(1.2 * rates * 0.9))}, common=False, spikes=3)


def _rare_images() -> Population:
    """One image in ten drives all neurons five times as hard."""
    rates, levels = rates_of() / 4, np.array([5.0] + [5 / 9] * 9)
    return Population(layers={"layer": (_seen(rates, levels), _seen(1.3 * rates, levels))})


ONE = np.full(NEURONS, 0.3)

SCENARIOS: Mapping[str, Callable[[], Population]] = {
    "unchanged rates": lambda: _same(lambda r: r),
    "unchanged rates, own noise": lambda: _same(lambda r: r, common=False),
    "one layer of 3 up by 30 %": lambda: _one(lambda r: 1.3 * r),
    "one layer of 3 up by 30 %, own noise": lambda: _one(lambda r: 1.3 * r, common=False),
    "one layer of 6 up by 5 %, own noise": lambda: _one(lambda r: 1.05 * r, still=5, common=False),
    "all layers up by 30 %": lambda: _same(lambda r: 1.3 * r),
    "all layers up by 30 %, own noise": lambda: _same(lambda r: 1.3 * r, common=False),
    "each neuron its own way": lambda: _same(_spread),
    "each neuron its own way, own noise": lambda: _same(_spread, common=False),
    "one rate parts into two, own noise": lambda: _same(lambda r: _half(r, 0.28, 0.32), ONE, layers=1, common=False),
    "one rate parts into two": lambda: _same(lambda r: _half(r, 0.28, 0.32), ONE, layers=1),
    "two rates become one, own noise": lambda: _same(lambda r: ONE, _half(ONE, 0.28, 0.32), layers=1, common=False),
    "pushed apart, own noise": lambda: _same(_apart, common=False),
    "pushed apart": lambda: _same(_apart),
    "permuted": lambda: _permuted(False, True),
    "permuted, own noise": lambda: _permuted(False, False),
    "permuted, own images": lambda: _permuted(True, True),
    "a third dies": lambda: _same(_dying),
    "a third dies, own noise": lambda: _same(_dying, common=False),
    "sparse, up by 30 %": lambda: _same(lambda r: 1.3 * r, rates_of() / 20),
    "sparse, up by 30 %, own noise": lambda: _same(lambda r: 1.3 * r, rates_of() / 20, common=False),
    "dense, down by 10 %, own noise": lambda: _same(lambda r: 0.9 * r, 0.3 + rates_of() / 2, common=False),
    "several spikes a step": _several,
    "few neurons, own noise": lambda: _same(lambda r: 1.3 * r, rates_of(6), layers=1, common=False),
    "one image in ten drives all": _rare_images,
}
