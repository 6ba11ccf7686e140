"""Operations that spikes and sums go through packed; all others get the plain tensors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from isofire.lookup.counts import Window
from isofire.lookup.tensors import HANDLERS, Handler, Lazy, Products, Shared, Spikes, Sums, spikes_in


def _handles(kind: type, *functions: Any) -> Callable[[Handler], Handler]:
    def add(handler: Handler) -> Handler:
        for function in functions:
            HANDLERS.setdefault(function, {})[kind] = handler
        return handler

    return add


def _axis(x: Tensor, dim: int) -> int:
    return dim + x.ndim if dim < 0 else dim


@_handles(Lazy, Tensor.flatten, torch.flatten)
def _flatten(x: Lazy, start_dim: int = 0, end_dim: int = -1) -> Any:
    start, end = _axis(x, start_dim), _axis(x, end_dim)
    if not x.folded and (start, end) == (0, 1):
        return _view(x, True)
    if not isinstance(x, Spikes) or start != (1 if x.folded else 2) or end != x.ndim - 1:
        return None
    return x if x.form != "maps" else Spikes(x.counts, "flat", x.divisor, x.folded, x.shared)


@_handles(Lazy, Tensor.unflatten)
def _unflatten(x: Lazy, dim: int, sizes: Any) -> Any:
    if not x.folded or _axis(x, dim) != 0 or len(sizes) != 2:
        return None
    if isinstance(x, Products):
        fits = sizes[0] > 0 and x.shape[0] % sizes[0] == 0 and sizes[1] in (-1, x.shape[0] // sizes[0])
        return _view(x, False, sizes[0]) if fits else None
    steps, images = x.steps, x.shape[0] // x.steps if x.steps else 0
    return _view(x, False) if tuple(sizes) in ((steps, images), (steps, -1)) else None


def _view(x: Lazy, folded: bool, steps: int = 0) -> Lazy:
    """With the first two axes as one, or not; `steps` is for products, which do not know them."""
    return _again(x, folded, steps, x.shared)


def _again(x: Lazy, folded: bool, steps: int, shared: Shared | None) -> Lazy:
    """A view, or with nothing `shared` a copy."""
    if isinstance(x, Spikes):
        return Spikes(x.counts, x.form, x.divisor, folded, shared)
    if isinstance(x, Products):
        return Products(x.layer, x.weight, x.inputs, x.affine, steps, shared)
    assert isinstance(x, Sums)
    return Sums(x.layer, x.codes, x.spikes, x.affine, folded, x.neurons, shared)


@_handles(Spikes, torch.add, Tensor.add, Tensor.__add__, Tensor.__radd__)
def _add(a: Spikes, other: Any, **options: Any) -> Any:
    fits = not options and _alike(a, other) and a.divisor == other.divisor
    return a.like(a.counts.plus(other.counts)) if fits else None


@_handles(Spikes, torch.mul, Tensor.mul, Tensor.__mul__, Tensor.__rmul__)
def _mul(a: Spikes, other: Any, **options: Any) -> Any:
    fits = not options and _alike(a, other)
    return a.like(a.counts.times(other.counts), a.divisor * other.divisor) if fits else None


@_handles(Spikes, Tensor.__rsub__)
def _one_minus(x: Spikes, other: Any) -> Any:
    fits = isinstance(other, (int, float)) and other == 1 and x.counts.most == 1 and x.divisor == 1
    return x.like(x.counts.complement()) if fits else None


def _alike(a: Spikes, b: Any) -> bool:
    b = spikes_in(b)
    return b is not None and a.counts.shape == b.counts.shape and (a.form, a.folded) == (b.form, b.folded)


@_handles(Spikes, Tensor.mean, torch.mean)
def _mean(x: Spikes, dim: Any = None, keepdim: bool = False, **options: Any) -> Any:
    axes = dim if isinstance(dim, (tuple, list)) else ()
    whole = x.form == "maps" and sorted(_axis(x, axis) for axis in axes) == [x.ndim - 2, x.ndim - 1]
    if not whole or options or not all(x.counts.shape):
        return None
    return _averaged(x, "maps" if keepdim else "features")


@_handles(Spikes, F.adaptive_avg_pool2d)
def _global_average(x: Spikes, output_size: Any) -> Any:
    ones = output_size in (1, (1, 1), [1, 1])
    return _averaged(x, "maps") if ones and x.folded and x.form == "maps" and all(x.counts.shape) else None


def _averaged(x: Spikes, form: str) -> Spikes:
    height, width = x.counts.shape[3:]
    return x.like(x.counts.sum_pool(Window((height, width), (1, 1), (0, 0))), x.divisor * height * width, form)


@_handles(Spikes, torch.max_pool2d, F.max_pool2d)
def _max_pool(
    x: Spikes, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:  # fmt: skip
    if not _is_map(x) or ceil_mode or return_indices or _pair(dilation) != (1, 1):
        return None
    return x.like(x.counts.max_pool(_window(kernel_size, stride, padding)))


@_handles(Spikes, F.avg_pool2d)
def _avg_pool(
    x: Spikes, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False,
    count_include_pad: bool = True, divisor_override: int | None = None,
) -> Any:  # fmt: skip
    window = _window(kernel_size, stride, padding)
    if not _is_map(x) or ceil_mode or (any(window.pad) and not count_include_pad):
        return None
    size = window.size[0] * window.size[1] if divisor_override is None else divisor_override
    return x.like(x.counts.sum_pool(window), x.divisor * size) if size > 0 else None


def _is_map(x: Spikes) -> bool:
    return x.folded and x.form == "maps" and all(x.counts.shape) and x.counts.most > 0


def _window(size: Any, stride: Any, pad: Any) -> Window:
    return Window(_pair(size), _pair(size if stride is None or stride == [] else stride), _pair(pad))


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[-1])


@_handles(Lazy, F.dropout, F.dropout1d, F.dropout2d, F.dropout3d)
def _dropout(x: Lazy, p: float = 0.5, training: bool = True, inplace: bool = False) -> Any:
    return None if training else x


@_handles(Lazy, Tensor.contiguous, Tensor.detach, Tensor.float)
def _same(x: Lazy, **options: Any) -> Any:
    if not options:
        return x
    wanted = options.get("memory_format", torch.contiguous_format)
    if len(options) > 1 or wanted not in (torch.contiguous_format, torch.channels_last):
        return None
    return x if x.is_contiguous(memory_format=wanted) else _again(x, x.folded, x.steps, None)


@_handles(Products, F.batch_norm)
@_handles(Sums, F.batch_norm)
def _batch_norm(
    x: Sums | Products, running_mean: Tensor | None, running_var: Tensor | None, weight: Tensor | None = None,
    bias: Tensor | None = None, training: bool = False, momentum: float = 0.1, eps: float = 1e-5,
) -> Any:  # fmt: skip
    if training or running_mean is None or running_var is None or not x.folded:
        return None
    return with_norm(x, running_mean, running_var, weight, bias, eps)


def with_norm(
    x: Sums | Products, mean: Tensor, var: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
) -> Sums | Products | None:
    """The sums with a batch norm of running statistics behind them; None if one is there already."""
    affine = x.affine.normalised(mean, var, weight, bias, eps)
    if affine is None:
        return None
    if isinstance(x, Products):
        return Products(x.layer, x.weight, x.inputs, affine, x.steps)
    return Sums(x.layer, x.codes, x.spikes, affine, x.folded, x.neurons)


def norm_of(x: Sums | Products, norm: nn.modules.batchnorm._BatchNorm) -> Sums | Products | None:
    """`with_norm` of a module; None in training."""
    if norm.training or norm.running_mean is None or norm.running_var is None:
        return None
    return with_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias, norm.eps)
