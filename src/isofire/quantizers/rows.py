"""How one parameter per tensor or per channel lines up with a tensor of any shape."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Rows(NamedTuple):
    """A tensor seen as `G` rows, one per group that shares parameters, and the way back.

    Attributes
    ----------
    values
        `[G, n]`. Elements of a row come in memory order, so a dense tensor is viewed rather than copied whatever its
        memory format; only `restore` knows where each belongs.
    """

    values: Tensor
    shape: torch.Size
    inverse: list[int]

    def restore(self, values: Tensor) -> Tensor:
        """Bring `[G, n]` values, in the order of this object's rows, back to the tensor's own shape."""
        return values.reshape(self.shape).permute(self.inverse)


def to_rows(x: Tensor, axis: int | None) -> Rows:
    """Split `x` into one row per index of `axis`, or into a single row when `axis` is None.

    >>> rows = to_rows(torch.arange(6.0).reshape(3, 2), axis=1)
    >>> rows.values
    tensor([[0., 2., 4.],
            [1., 3., 5.]])
    >>> rows.restore(rows.values)[2]
    tensor([4., 5.])
    """
    rest = sorted((d for d in range(x.ndim) if d != axis), key=lambda d: -x.stride(d))
    order = rest if axis is None else [axis, *rest]
    moved = x.permute(order)
    groups = 1 if axis is None else x.shape[axis]
    inverse = sorted(range(x.ndim), key=order.__getitem__)
    return Rows(moved.reshape(groups, x.numel() // groups if groups else 0), moved.shape, inverse)


def along(parameter: Tensor, ndim: int, axis: int | None) -> Tensor:
    """View `[G]` parameters so that they broadcast along `axis` of a tensor with `ndim` dimensions.

    With `axis=None`, or a single parameter, the result has no dimension and broadcasts against any shape.
    """
    if axis is None or parameter.numel() == 1:
        return parameter.reshape(())
    return parameter.reshape([-1 if d == axis else 1 for d in range(ndim)])
