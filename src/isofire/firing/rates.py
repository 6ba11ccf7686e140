"""Firing rates of single neurons and what one number can say of them: the mean, and the share of dead neurons."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from isofire.errors import DataError, SpecError
from isofire.firing.counts import SpikeCounts

RateLike = torch.Tensor | NDArray[np.floating | np.integer] | Sequence[float]
"""Rates of a population of neurons, 1-D [n], in spikes per neuron per step."""

PAPER_CUT = 0.05
"""Rate below which Smith et al. (arXiv 2604.14487) call a neuron dead."""


class Transitions(NamedTuple):
    """How many neurons went from alive or dead in one network to alive or dead in the other; a 2 x 2 table."""

    stayed_alive: int
    died: int
    revived: int
    stayed_dead: int


def as_rates(values: RateLike | SpikeCounts, name: str = "rates", layer: str | None = None) -> NDArray[np.float64]:
    """Check rates and turn them into float64 [n]; of a recording, those of `layer` or of all layers.

    Raises
    ------
    DataError
        If they are no rates, not 1-D, empty, negative, or not finite. Rates above 1 pass: a spike may carry a count.
    SpecError
        If the recording has no such layer, or a layer is named for plain rates.
    """
    if isinstance(values, SpikeCounts):
        return values.rates(layer).numpy()
    if layer is not None:
        raise SpecError(f"layer {layer!r} can only be chosen from a SpikeCounts; plain rates have no layers")
    if isinstance(values, torch.Tensor):
        whole = values.detach().dequantize() if values.is_quantized else values.detach().to_dense()
        values = whole.to("cpu", torch.float64).numpy()
    if isinstance(values, np.ma.MaskedArray):
        raise DataError(f"{name} must be rates of every neuron, got a masked array; take those that are not masked out")
    try:
        rates = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise DataError(f"{name} must be rates [n] or a recording (SpikeCounts), got {type(values).__name__}") from None
    if rates.ndim != 1:
        raise DataError(f"{name} must be one-dimensional [n], got shape {list(rates.shape)}; flatten the neurons first")
    if rates.size == 0:
        raise DataError(f"{name} must hold at least one neuron, got none")
    if not np.isfinite(rates).all():
        where = int(np.argmin(np.isfinite(rates)))
        raise DataError(f"{name} must be finite, got {rates[where]} at neuron {where}")
    if rates.min() < 0:
        where = int(rates.argmin())
        raise DataError(f"{name} must not be negative, got {rates[where]} at neuron {where}")
    return rates


def as_rate_pair(
    a: RateLike | SpikeCounts, b: RateLike | SpikeCounts, layer: str | None = None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Rates of the same neurons in two networks, checked by `as_rates`.

    Raises
    ------
    DataError, SpecError
        Also if the number of neurons differs, or two recordings are not of the same neurons.
    """
    if isinstance(a, SpikeCounts) and isinstance(b, SpikeCounts) and (found := a.difference(b)) is not None:
        raise DataError(f"a and b must be rates of the same neurons: {found}")
    first, second = as_rates(a, "a", layer), as_rates(b, "b", layer)
    if first.size != second.size:
        raise DataError(f"a and b must be rates of the same neurons, got {first.size} against {second.size}")
    return first, second


def mean_firing_rate(counts: SpikeCounts | RateLike, layer: str | None = None) -> float:
    """Mean firing rate in spikes per neuron per step.

    Parameters
    ----------
    counts
        A recording, or the rates of a population [n].
    layer
        The layer of a recording; None means all of its neurons, each with the same weight.

    Raises
    ------
    SpecError
        If the recording has no such layer, or a layer is named for plain rates.

    Examples
    --------
    >>> mean_firing_rate([0.0, 0.25, 0.5])
    0.25
    """
    if isinstance(counts, SpikeCounts):
        return counts.total(layer) / (counts.denominator * counts.n_neurons(layer))
    return float(as_rates(counts, layer=layer).mean())


def dead_share(counts: SpikeCounts | RateLike, cut: float = PAPER_CUT, layer: str | None = None) -> float:
    """Share of neurons that are dead, from 0 to 1.

    Dead means a rate of exactly 0 for `cut` 0, and a rate below `cut` for any other. The share falls as more images
    are counted (a rarely firing neuron needs many images to be seen once), so give the number of images beside it.

    Parameters
    ----------
    counts, layer
        As in `mean_firing_rate`.
    cut
        In spikes per neuron per step, >= 0. The default is the paper's (arXiv 2604.14487).

    Raises
    ------
    SpecError
        If `cut` is negative or not finite, or `layer` does not fit.

    Examples
    --------
    >>> dead_share([0.0, 0.01, 0.05, 0.5]), dead_share([0.0, 0.01, 0.05, 0.5], cut=0)
    (0.5, 0.25)
    """
    return float(is_dead(as_rates(counts, layer=layer), cut).mean())


def alive_dead_transitions(
    a: RateLike | SpikeCounts, b: RateLike | SpikeCounts, cut: float = PAPER_CUT, layer: str | None = None
) -> Transitions:
    """Count the neurons that died, revived, or stayed as they were from rates `a` to rates `b`.

    Raises
    ------
    DataError, SpecError
        If `a` and `b` are not rates of the same neurons, or `cut` is negative or not finite.

    Examples
    --------
    >>> alive_dead_transitions([0.5, 0.5, 0.0], [0.5, 0.01, 0.2])
    Transitions(stayed_alive=1, died=1, revived=1, stayed_dead=0)
    """
    first, second = (is_dead(rates, cut) for rates in as_rate_pair(a, b, layer))
    pairs = (~first & ~second, ~first & second, first & ~second, first & second)
    return Transitions(*(int(pair.sum()) for pair in pairs))


def is_dead(rates: NDArray[np.float64], cut: float) -> NDArray[np.bool_]:
    """Which rates count as dead at `cut`; see `dead_share`."""
    require_cut(cut)
    return rates < cut if cut > 0 else rates <= 0


def require_cut(cut: float) -> None:
    """Refuse a cut that is no rate.

    Raises
    ------
    SpecError
        If it is no number, negative or not finite.
    """
    known = isinstance(cut, int | float | np.integer | np.floating) and not isinstance(cut, bool)
    if not known or not (cut >= 0 and np.isfinite(cut)):
        raise SpecError(f"cut must be a rate >= 0, got {cut!r}; the paper's is {PAPER_CUT}")
