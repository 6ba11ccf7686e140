"""Weights as whole numbers: on the lattice that they lie on already, or on a fine grid of their own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

LARGEST = 1 << 16
"""The largest code of a lattice: levels of 16 bits, as odd numbers."""
_PARTS = (1, 2, 3, 4, 6)
_FEW = 256
"""The largest code of a lattice of which only a few points are taken, so that no two need be neighbours."""
_ENOUGH = 8
_TRIED = 16
# twice the rounding of origin + step * k in float32
_ROUNDING = 2.0**-22
# by which share of itself that may move the least point of 16 bits
_KEPT = 2.0**-6


class Codes(NamedTuple):
    """int64 codes of the weights' shape and the step of each output, float64 [out]: weight = step * code.

    `exact`: up to the rounding of float32, which is how the weights came.
    """

    codes: Tensor
    step: Tensor
    exact: bool


def codes_of(weight: Tensor, bits: int, one_step: bool = False, known: int | None = None) -> Codes:
    """The codes of quantized weights, whose levels have equal distances with 0 on a level or half way between two.

    A lattice is looked for in the whole tensor, then in each output's weights. Other weights, in full precision or on
    levels without a common distance, are rounded to codes of `bits` bits, with a step for each output.

    Parameters
    ----------
    weight
        [out, ...], as the network multiplies with them.
    one_step
        Every output has the same step.
    known
        The largest code, where the weights are known to have levels: however few are in use, a lattice is looked for.

    Examples
    --------
    >>> codes_of(torch.tensor([[-1.0, 1 / 3], [1.0, -1 / 3]]), 16).codes
    tensor([[-3,  1],
            [ 3, -1]])
    """
    w = weight.detach().double().cpu()
    whole = _lattice(w, known)
    if whole is not None:
        steps = torch.full(w.shape[:1], whole, dtype=torch.float64)
        codes = _divided(w, steps)
        if _keeps_each_output(w, codes * whole):
            return Codes(codes, steps, True)
    if not one_step:
        each = []
        for row in w:
            each.append(_lattice(row, known))
            if each[-1] is None:
                break
        else:
            steps = torch.tensor(each, dtype=torch.float64)
            return Codes(_divided(w, steps), steps, True)
    top = 2 ** (bits - 1) - 1
    largest = w.abs().amax() if one_step else w.abs().flatten(1).amax(1)
    steps = torch.where(largest > 0, largest / top, torch.ones_like(largest)).expand(w.shape[0]).clone()
    return Codes(_divided(w, steps), steps, False)


def _divided(w: Tensor, steps: Tensor) -> Tensor:
    return (w / steps.view(-1, *(1,) * (w.ndim - 1))).round().to(torch.int64)


def _keeps_each_output(w: Tensor, found: Tensor) -> bool:
    """Whether outputs of far smaller weights than others, which the largest one's rounding would hide, are kept too."""
    noise = w.abs().flatten(1).amax(1).view(-1, *(1,) * (w.ndim - 1)) * _ROUNDING
    return bool((((w - found).abs() <= w.abs() * _KEPT) | (w.abs() <= noise)).all())


def _lattice(w: Tensor, known: int | None) -> float | None:
    """The step of which every weight is a multiple, up to float32's rounding; None if there is none."""
    values = w.unique()
    if values.numel() > 2 * LARGEST:
        return None
    magnitudes = values.abs().unique()
    largest = float(magnitudes[-1])
    if largest == 0.0:
        return 1.0
    gaps = torch.cat([values.diff(), magnitudes[magnitudes > 0]])
    gaps = gaps[gaps > largest * _ROUNDING]
    least = float(gaps.min())
    for step in (*(least / part for part in _PARTS), _common(gaps, largest / _FEW)):
        if largest / step <= LARGEST and (found := _refined(magnitudes, step)) is not None:
            return found
    each = (_fitted(magnitudes, step) for step in _divisors(magnitudes, known))
    return next((step for step in each if step is not None), None)


def _divisors(magnitudes: Tensor, known: int | None) -> Iterator[float]:
    """The largest steps of which the largest of at least `_ENOUGH` magnitudes and, up to float32, all are multiples.

    With fewer, random numbers would lie on one too: a step's multiples are told apart to one part in 2^6 at the least.
    """
    if known is None and int((magnitudes > 0).sum()) < _ENOUGH:
        return
    largest = float(magnitudes[-1])
    counts = torch.arange(1, min(known or LARGEST, LARGEST) + 1, dtype=torch.float64)
    for value in magnitudes.tolist():
        places = value / largest * counts
        counts = counts[(places - places.round()).abs() <= 2.0 * counts * _ROUNDING]
        if not counts.numel():
            return
    yield from (largest / counts[:_TRIED]).tolist()


def _common(values: Tensor, least: float) -> float:
    """The largest common divisor of a few values such as 7 and 12 steps, by Euclid; less than `least` if there is none.

    What rounding leaves of a multiple is far below `least`, as long as the values have fewer than 256 steps.
    """
    common = 0.0
    for value in values.tolist():
        common, rest = max(common, value), min(common, value)
        while rest > least / 2:
            common, rest = rest, abs(common - round(common / rest) * rest)
        if common < least:
            break
    return common


def _refined(magnitudes: Tensor, step: float) -> float | None:
    """The step made exact by ever larger multiples of it; None if one is no multiple."""
    tolerance = float(magnitudes[-1]) * _ROUNDING
    for value in magnitudes.tolist():
        k = round(value / step)
        if abs(value - k * step) > max(tolerance, 0.05 * step):
            return None
        if k:
            # each is rounded by as much as the largest at most, so the larger the closer
            step = value / k
    return _fitted(magnitudes, step)


def _fitted(magnitudes: Tensor, step: float) -> float | None:
    """The step for which all together are closest to multiples; None if one is none."""
    tolerance = float(magnitudes[-1]) * _ROUNDING
    multiples = (magnitudes / step).round()
    fitted = float((magnitudes * multiples).sum() / multiples.square().sum())
    return fitted if float((magnitudes - multiples * fitted).abs().max()) <= tolerance else None
