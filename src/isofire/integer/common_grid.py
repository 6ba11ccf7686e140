"""Thresholds and biases that are multiples of one number stay so in whole units, so that exact ties stay ties."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import NamedTuple

import torch
from torch import Tensor

_MOST = 1 << 16
"""The largest multiple of a common grid: numbers of 16 bits. Any floats are multiples of some power of two."""
_SIMPLE = 256
"""The largest denominator of a ratio between a weight's step and a grid that is taken for one of whole numbers."""
_MEANT = 2.0**-24
"""How close to such a ratio float32 leaves a step."""
_ODD = 15
"""The largest odd number that codes are multiplied by; they become up to four bits wider."""
_CLOSE = 2.0**-16
"""By which share of themselves numbers may be moved together to keep their ratios."""


class Units(NamedTuple):
    """Of each output [out]: what codes are multiplied by, digits of the shift, and a unit's value for sums and numbers.

    `numbers` is the unit in which thresholds, biases and levels are told: next to `sums`, and a whole share of their
    common grid where they have one.
    """

    odd: Tensor
    point: Tensor
    sums: Tensor
    numbers: Tensor


def units_of(gain: Tensor, point: Tensor, numbers: Tensor) -> Units:
    """Units of outputs of which one code counts `gain` [out], with about 2^`point` [out] of them to a code.

    Parameters
    ----------
    numbers
        float64 [k, out]: what must keep its ratios, the last of them only if it can; zeros decide nothing.

    Examples
    --------
    >>> threshold_and_bias = torch.tensor([[0.75], [0.25]], dtype=torch.float64)
    >>> found = units_of(torch.tensor([0.3], dtype=torch.float64), torch.tensor([8]), threshold_and_bias)
    >>> (threshold_and_bias / found.numbers).flatten().tolist()
    [480.0, 160.0]
    """
    odd, shift, shares = [], [], []
    for one, digits, column in zip(gain.tolist(), point.tolist(), numbers.T.tolist(), strict=True):
        held = [value for value in column if value]
        if (grid := _grid(held)) is None and len(held) > 1:
            held = [value for value in column[:-1] if value]
            grid = _grid(held)
        factor, binary = _whole_ratio(one, grid, digits)
        unit = one / (factor * 2.0**binary)
        parts = 0.0 if grid is None else grid / unit
        # a threshold alone has no ratio to keep but that to the step
        kept = parts >= 0.5 and abs(parts - round(parts)) <= (_CLOSE if len(held) > 1 else _MEANT) * parts
        odd.append(factor)
        shift.append(binary)
        shares.append(grid / round(parts) if kept and grid is not None else unit)
    factors, points = torch.tensor(odd), torch.tensor(shift)
    return Units(factors, points, gain / (factors * 2.0**points), torch.tensor(shares, dtype=torch.float64))


def _grid(values: list[float]) -> float | None:
    """The largest number of which values are multiples of at most `_MOST`; None: there is none."""
    ratios = [abs(value).as_integer_ratio() for value in values]
    whole = max(below for _, below in ratios)
    common = math.gcd(*(above * (whole // below) for above, below in ratios))
    grid = common / whole
    return grid if max(map(abs, values)) / grid <= _MOST else None


def _whole_ratio(step: float, grid: float | None, point: int) -> tuple[int, int]:
    """An odd number and a shift, within 2^point together: so many units to a step, and a whole number to the grid."""
    if grid is None or point < 0:
        return 1, point
    ratio = Fraction(step) / Fraction(grid)
    near = ratio.limit_denominator(_SIMPLE)
    if not near or abs(float(near / ratio) - 1.0) > _MEANT:
        return 1, point
    odd = near.numerator // (near.numerator & -near.numerator)
    twos = (near.numerator // odd).bit_length() - 1
    binary = point - (odd - 1).bit_length()
    return (odd, binary) if odd <= _ODD and binary >= twos else (1, point)
