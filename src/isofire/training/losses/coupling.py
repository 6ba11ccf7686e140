"""The cheapest transport between two populations of rates on a line, and its gradient.

On a line the best transport couples by rank: the least of one population with the least of the other. Rates of a batch
are counts over T * N, so many neurons share few levels; then ranks follow from histograms, without sorting neurons.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

Cost = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Differences -> cost of each, and its derivative."""

_SPARE_LEVELS = 2**16


class Levels(NamedTuple):
    """A population by its different rates.

    values
        Ascending, float64 [L].
    mass
        How many neurons have each, int64 [L]; may be 0.
    place
        Each neuron's level, int64 [n].
    """

    values: Tensor
    mass: Tensor
    place: Tensor


def levels_of(rates: Tensor, presentations: int = 0) -> Levels:
    """Sort a population into its levels.

    Parameters
    ----------
    rates
        [n], >= 0.
    presentations
        If rates are whole counts over this number, levels are counted instead of sorted. 0, or rates that are none:
        they are sorted.
    """
    rates = rates.detach().double()
    if presentations:
        exact = rates * presentations
        counts = exact.round()
        # float32 rates are up to 2**-24 of themselves off a count
        whole = bool(((exact - counts).abs() <= 1e-6 * counts + 1e-9).all())
        if whole and (top := int(counts.max())) < 8 * len(rates) + _SPARE_LEVELS:
            place = counts.long()
            mass = torch.bincount(place, minlength=top + 1)
            return Levels(torch.arange(top + 1, device=rates.device).double() / presentations, mass, place)
    values, place, mass = torch.unique(rates, return_inverse=True, return_counts=True)
    return Levels(values, mass, place)


def couple(one: Levels, other: Levels) -> tuple[Tensor, Tensor, Tensor]:
    """Couple two populations by rank.

    Returns
    -------
    tuple
        Levels of `one`, levels of `other` (indices), and the share of all mass that goes from the one to the other;
        each [S], S = the levels of both. Shares may be 0 and add up to 1.
    """
    n, m = int(one.mass.sum()), int(other.mass.sum())
    # in n * m parts the masses of both are whole numbers
    ends_one, ends_other = one.mass.cumsum(0) * m, other.mass.cumsum(0) * n
    ends = torch.cat([ends_one, ends_other]).sort().values
    share = torch.diff(ends, prepend=ends.new_zeros(1)).double() / (n * m)
    return torch.searchsorted(ends_one, ends), torch.searchsorted(ends_other, ends), share


def transport(rates: Tensor, target: Tensor, cost: Cost, scale: Tensor, presentations: tuple[int, int]) -> Tensor:
    """The least mean cost of turning one population of rates into another, differentiable by the first.

    With `cost` the absolute value it is the earth mover's distance W1, with the square W2 squared. Neurons of one rate
    are interchangeable, so each of them gets the mean of the gradients that all orders among them would give.

    Parameters
    ----------
    rates
        [n]; carries gradient.
    target
        [m]; m may differ from n.
    cost
        Of differences divided by `scale`; convex.
    scale
        0-d, > 0.
    presentations
        T * N behind `rates` and `target`, see `levels_of`.

    Returns
    -------
    Tensor
        0-d, without unit if `scale` is in that of rates.
    """
    one, other = levels_of(rates, presentations[0]), levels_of(target, presentations[1])
    from_, to, share = couple(one, other)
    value, slope = cost((one.values[from_] - other.values[to]) / scale.double())
    by_level = torch.zeros_like(one.values).index_add_(0, from_, slope * share) / (scale * one.mass.clamp(min=1))
    return _Known.apply(rates, (value * share).sum().to(rates), by_level[one.place].to(rates))


class _Known(torch.autograd.Function):
    """A value whose gradient was worked out beside it."""

    @staticmethod
    def forward(ctx: Any, _x: Tensor, value: Tensor, gradient: Tensor) -> Tensor:
        ctx.save_for_backward(gradient)
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return grads[0] * gradient, None, None
