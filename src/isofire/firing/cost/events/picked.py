"""Events of what a maximum picks: each element brings its own, whatever its layer's spikes were scaled by."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from isofire.firing.cost.events.call import Call
from isofire.firing.cost.events.events import NONE, Events
from isofire.firing.cost.events.forms import Form

_POOLS = {
    "max_pool2d_with_indices": 2, "max_pool3d_with_indices": 3, "adaptive_max_pool2d": 2, "adaptive_max_pool3d": 3,
}  # fmt: skip
"""Operation that says which place it took -> axes of a place."""


def picked(call: Call) -> Events:
    """Events of a maximum pool, of the largest or smallest along axes, and of the larger or smaller of two tensors."""
    tensors = [x for x in call.args if isinstance(x, Tensor)]
    events = [call.events(x) for x in tensors]
    counts = [item.count for item in events if item.count is not None]
    found = None if not counts or len(counts) < len(events) else _counts(call, tensors, counts)
    if found is None:
        return NONE
    through = frozenset((call.name,)).union(*(item.through for item in events))
    return Events(found, False, through, {f"{call.place} {call.name}": Form()})


def _counts(call: Call, tensors: Sequence[Tensor], counts: Sequence[Tensor]) -> Tensor | None:
    name, output, x, count = call.name, call.output, tensors[0], counts[0]
    if name in _POOLS:
        place = output[1]
        return count.flatten(-_POOLS[name]).gather(-1, place.flatten(-_POOLS[name])).view_as(place)
    if name in ("max", "min") and isinstance(output, tuple | list):
        axis, place = call.args[1], output[1]
        kept = place.ndim == count.ndim
        found = count.gather(axis, place if kept else place.unsqueeze(axis))
        return found if kept else found.squeeze(axis)
    if name in ("amax", "amin"):
        axes = [axis % x.ndim for axis in (call.args[1] if len(call.args) > 1 and call.args[1] else range(x.ndim))]
        rows, its = (_last(part, axes) for part in (x, count))
        place = (rows.argmax(-1) if name == "amax" else rows.argmin(-1)).unsqueeze(-1)
        return its.gather(-1, place).view_as(output)
    if name in ("maximum", "minimum") and len(counts) == 2:
        return torch.where(output == x, *counts)
    return None


def _last(x: Tensor, axes: Sequence[int]) -> Tensor:
    """These axes as one, the last."""
    return x.movedim(tuple(axes), tuple(range(-len(axes), 0))).flatten(-len(axes))
