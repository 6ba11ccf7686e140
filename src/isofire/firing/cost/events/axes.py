"""Along which axes of a tensor the factor differs by which a layer's spikes are in it, kept as places in memory.

Views (permuted, sliced, unbound) are no operations. A pair (stride, size) says that elements of a memory differ whose
place // stride % size does, and every view of it tells its own axes from that.
"""

from __future__ import annotations

from collections.abc import Hashable

import torch
from torch import Tensor

from isofire.firing.cost.events.forms import Form, Forms

Axes = frozenset[int]
"""Counted from the last, -1, as in tensors of other sizes that are put together by elements."""
Digits = frozenset[tuple[int, int]]


def digits_of(x: Tensor, axes: Axes) -> Digits:
    """Places in memory at which elements differ along these axes."""
    return frozenset((x.stride(axis), x.shape[axis]) for axis in axes if x.shape[axis] > 1 and x.stride(axis))


def digits_beside(x: Tensor, size: int) -> Digits:
    """Places in a memory of so many elements that a view of it does not go through."""
    found, low = set(), 1
    for stride, count in sorted(
        (stride, count) for count, stride in zip(x.shape, x.stride(), strict=True) if count > 1
    ):
        if stride > low:
            found.add((low, stride // low))
        low = max(low, stride * count)
    return frozenset(found | ({(low, -(-size // low))} if low < size else set()))


def axes_of(x: Tensor, digits: Digits) -> Axes:
    """Axes of a view along which elements differ."""
    return frozenset(axis for axis in range(-x.ndim, 0) if any(_crosses(x, axis, digit) for digit in digits))


def _crosses(x: Tensor, axis: int, digit: tuple[int, int]) -> bool:
    size, stride, (low, count) = x.shape[axis], x.stride(axis), digit
    return size > 1 and stride > 0 and max(stride, low) < min(stride * size, low * count)


def forms_of(x: Tensor, digits: Digits, forms: Forms) -> Forms:
    """Forms in a view: a part along an axis on which factors differ has other factors than the whole."""
    part = []
    for low, count in sorted(digits):
        start = int(x.storage_offset()) // low % count
        along = [axis for axis in range(x.ndim) if _crosses(x, axis, (low, count))]
        length = 1 + sum((x.shape[axis] - 1) * x.stride(axis) // low for axis in along)
        if start or length < count:
            part.append((low, count, start, int(length)))
    return keyed(forms, tuple(part)) if part else forms


def differing(forms: Forms) -> list[str]:
    """Layers whose spikes are in a tensor by several factors."""
    return [layer for layer, form in forms.items() if form.factor is not None and not isinstance(form.factor, float)]


def keyed(forms: Forms, part: Hashable) -> Forms:
    """Where a layer comes by several factors, those of a part, or in another order."""
    several = differing(forms)
    return {layer: Form((form.factor, part), form.terms) if layer in several else form for layer, form in forms.items()}


def differs(factor: Tensor) -> Axes:
    """Axes along which a tensor of factors differs; where it is 0 nothing comes."""
    shown = factor.detach()
    if not bool(shown.any()):
        return frozenset()
    shown = torch.where(shown == 0, shown[shown != 0][0], shown)
    return frozenset(
        axis
        for axis in range(-shown.ndim, 0)
        if shown.shape[axis] > 1 and not torch.equal(shown, shown.narrow(axis, 0, 1).expand_as(shown))
    )
