"""Straight-through gradients: the forward pass returns the quantized values bit for bit, the backward pass skips them.

The usual `x + (q - x).detach()` rounds twice and so misses the levels by an ulp; these functions don't.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


class _Plain(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, q: Tensor) -> Tensor:
        return q.detach()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0], None


class _Clipped(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, q: Tensor, lo: Tensor, hi: Tensor) -> Tensor:
        ctx.save_for_backward(x, lo, hi)
        return q.detach()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        x, lo, hi = ctx.saved_tensors
        outside = (x < lo).logical_or_(x > hi)
        return grads[0].masked_fill(outside, 0), None, None, None


class _Sloped(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, q: Tensor, slope: Callable[[Tensor], Tensor]) -> Tensor:
        ctx.save_for_backward(x)
        ctx.slope = slope
        return q.detach()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        return grads[0] * ctx.slope(ctx.saved_tensors[0]), None, None


def plain(x: Tensor, q: Tensor) -> Tensor:
    """Return `q` with the gradient of `x`: dq/dx = 1 everywhere (Bengio et al. 2013, arXiv 1308.3432).

    Parameters
    ----------
    x
        Real values, any shape.
    q
        Their quantized values: same shape and dtype, no gradient.
    """
    return _Plain.apply(x, q)  # type: ignore[return-value]


def clipped(x: Tensor, q: Tensor, lo: Tensor, hi: Tensor) -> Tensor:
    """Return `q` with the gradient of `clip(x, lo, hi)`: 1 where lo <= x <= hi, 0 outside.

    Parameters
    ----------
    x, q
        As in `plain`.
    lo, hi
        Bounds that broadcast against `x`. They are kept for the backward pass: don't change them in place before it.
    """
    return _Clipped.apply(x, q, lo, hi)  # type: ignore[return-value]


def sloped(x: Tensor, q: Tensor, slope: Callable[[Tensor], Tensor]) -> Tensor:
    """Return `q` with the gradient dq/dx = slope(x).

    Parameters
    ----------
    x, q
        As in `plain`.
    slope
        Called with `x` in the backward pass. Tensors that it holds must not be changed in place before it.
    """
    return _Sloped.apply(x, q, slope)  # type: ignore[return-value]
