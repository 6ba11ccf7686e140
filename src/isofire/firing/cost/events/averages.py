"""Events of sums and averages along axes and over windows."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from isofire.firing.cost.events.call import Call
from isofire.firing.cost.events.events import Events
from isofire.firing.cost.events.factors import folded
from isofire.firing.cost.events.forms import scaled
from isofire.firing.cost.events.moves import writable


def summed(call: Call, own: Events, count: Tensor) -> Events:
    """Of a sum along axes, a running sum, a trace."""
    total = call.func(writable(call, count), *call.args[1:], **_without_dtype(call))
    # a running sum holds each element in all later ones
    terms = 0.0 if call.name == "cumsum" else count.numel() / max(total.numel(), 1)
    return Events(total, own.whole, own.through, scaled(own.forms, 1.0, terms), graded=own.graded)


def mean_of(call: Call, own: Events, count: Tensor) -> Events:
    """Of a mean along axes."""
    total = torch.sum(count, *call.args[1:3]) if len(call.args) > 1 else count.sum()
    return _divided(own, total, count.numel() / max(total.numel(), 1))


def pooled(call: Call, own: Events, count: Tensor) -> Events:
    """Of an average pool."""
    kernel, *others = [*call.args[1:], *[None] * 6]
    size = math.prod(kernel) if len(kernel) > 1 else kernel[0] ** (call.args[0].ndim - 2)
    divisor = size if others[4] is None else others[4]
    total = _of_windows(call.name, count, kernel, others[0] or kernel, others[1] or 0, bool(others[2]))
    if divisor == 1 and own.by_height:
        return replace(own, count=total, forms=scaled(own.forms, 1.0, size))
    return _divided(own, total, size, divisor)


def adaptively_pooled(call: Call, own: Events, count: Tensor) -> Events:
    """Of an average pool whose windows differ in size where these do not divide the map."""
    total = call.func(count, *call.args[1:])
    for axis in range(1, len(call.args[1]) + 1):
        size, windows = count.shape[-axis], total.shape[-axis]
        ends = [-(-(i + 1) * size // windows) - i * size // windows for i in range(windows)]
        lengths = torch.tensor(ends, dtype=torch.float64, device=count.device)
        total = total * lengths.view(-1, *[1] * (axis - 1))
    total = total if total.requires_grad else total.round()
    return _divided(own, total, count.numel() / max(total.numel(), 1))


def _divided(own: Events, total: Tensor, terms: float, divisor: float | None = None) -> Events:
    return folded(replace(own, count=total), 1 / (divisor or max(terms, 1)), terms)


def _of_windows(name: str, count: Tensor, kernel: Any, stride: Any, padding: Any, ceil_mode: bool) -> Tensor:
    """The sum over each window."""
    if name == "avg_pool1d":
        total = torch.nn.functional.avg_pool1d(count, kernel, stride, padding, ceil_mode)
        ones = torch.nn.functional.avg_pool1d(torch.ones_like(count), kernel, stride, padding, ceil_mode)
        return total * kernel[0] if not ceil_mode else total / ones * kernel[0]
    pool = torch.nn.functional.avg_pool2d if name == "avg_pool2d" else torch.nn.functional.avg_pool3d
    return pool(count, kernel, stride, padding, ceil_mode, True, 1)


def _without_dtype(call: Call) -> dict[str, Any]:
    return {key: value for key, value in call.options.items() if key != "dtype"}
