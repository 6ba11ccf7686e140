"""Sums along an axis on which the factor differs by which a layer's spikes are in a tensor.

`h * w[t]` has another factor at each step. A sum along that axis adds spikes of one layer up by several factors, which
no weight behind it can hold, however the sum is written: over a permuted, sliced or unbound tensor, as a mean or a
pool.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor

from isofire.firing.cost.events.axes import Axes, differing, differs, keyed
from isofire.firing.cost.events.call import Call
from isofire.firing.cost.events.events import Events
from isofire.firing.cost.events.operations import (
    ADAPTIVE_POOLS,
    AVERAGE_POOLS,
    MEANS,
    MOVES,
    NORMS,
    PLACED,
    SUMS,
    SUMS_OF_TWO,
)  # fmt: skip

_AS_THEY_LIE = frozenset(("clone", "contiguous", "_to_copy", "_copy_from", "copy", "lift_fresh_copy", "repeat"))
_SAME_AXES = frozenset((
    "cat", "roll", "flip", "index_select", "gather", "constant_pad_nd", "reflection_pad1d", "reflection_pad2d",
    "replication_pad1d", "replication_pad2d", "tril", "triu", "split_with_sizes_copy", "unsafe_split",
    "unsafe_split_with_sizes", "upsample_nearest1d", "upsample_nearest2d",
))  # fmt: skip
_arrangements = itertools.count()


def varying(call: Call, found: Events) -> Events:
    """What an operation gives, with the axes along which its factors differ; none of its events where it adds up spikes
    of a layer along one of these."""
    if found.count is None or not differing(found.forms):
        return found
    name, given = call.name, [call.events(x) for x in call.tensors() if call.depends(x)]
    axes = frozenset[int]().union(*(item.axes for item in given))
    if name in SUMS or name in MEANS or name in AVERAGE_POOLS or name in ADAPTIVE_POOLS:
        summed, axes = _summed(call, axes)
    elif name in SUMS_OF_TWO:
        summed, axes = _unlike(given), _of_this(call, given)
    else:
        summed, axes = _adds(call) and (bool(axes) or _several(given)), _of_this(call, given)
    if summed and not found.whole:
        return replace(found, count=None)
    arranged = axes and (name in PLACED or (name in MOVES and name not in _AS_THEY_LIE))
    # the same factors in another order are others
    forms = keyed(found.forms, (name, next(_arrangements))) if arranged else found.forms
    return replace(found, axes=axes, forms=forms)


def _adds(call: Call) -> bool:
    """Whether elements are added into others by their places."""
    accumulates = call.options.get("accumulate", call.args[3] if len(call.args) > 3 else False)
    return call.name.endswith("_add") or (call.name in PLACED and accumulates is True)


def _summed(call: Call, axes: Axes) -> tuple[bool, Axes]:
    """Whether the operation sums along one of the axes, and those of what it gives."""
    x, name = call.args[0], call.name
    every = range(-x.ndim, 0)
    if name in AVERAGE_POOLS:
        kernel = call.args[1]
        pooled = range(-(int(name[-2])), 0)
        sizes = kernel if len(kernel) == len(pooled) else [kernel[0]] * len(pooled)
        return any(axis in axes and size > 1 for axis, size in zip(pooled, sizes, strict=True)), axes
    if name in ADAPTIVE_POOLS:
        return any(axis in axes and x.shape[axis] != call.output.shape[axis] for axis in every), axes
    if name in ("trace", "col2im"):
        return bool(axes), frozenset()
    asked = call.args[1] if len(call.args) > 1 else None
    asked = [asked] if isinstance(asked, int) else asked or list(every)
    along = {axis % x.ndim - x.ndim for axis in asked}
    if call.output.ndim == x.ndim:
        return bool(axes & along), axes
    left = [axis for axis in every if axis not in along]
    return bool(axes & along), frozenset(left.index(axis) - len(left) for axis in axes - along)


def _unlike(given: list[Events]) -> bool:
    """Whether two tensors hold spikes of one layer by factors that differ along other axes."""
    return any(set(differing(one.forms)) & set(differing(other.forms)) and one.axes != other.axes
               for one, other in itertools.combinations(given, 2))  # fmt: skip


def _several(given: Sequence[Events]) -> bool:
    """Whether tensors hold spikes of one layer by different factors."""
    found: dict[str, object] = {}
    return any(form.factor != found.setdefault(layer, form.factor)
               for item in given for layer, form in item.forms.items())  # fmt: skip


def _of_this(call: Call, given: Sequence[Events]) -> Axes:
    """Axes along which factors differ in what an operation gives that sums nothing."""
    name, ndim = call.name, call.output[0].ndim if isinstance(call.output, tuple | list) else call.output.ndim
    axes = frozenset[int]().union(*(item.axes for item in given))
    if name in ("mul", "div", "lerp", "addcmul", "addcdiv"):
        factors = [x for x in (*call.args, *call.options.values()) if isinstance(x, Tensor) and not call.depends(x)]
        return axes.union(*map(differs, factors))
    if name in NORMS:
        return axes | {1 - ndim}
    if name in ("cat", "stack"):
        place = (call.args[1] if len(call.args) > 1 else call.options.get("dim", 0)) % ndim - ndim
        if name == "stack":
            axes = frozenset(axis if axis > place else axis - 1 for axis in axes)
        return axes | ({place} if _several(given) else set())
    anew = name in PLACED or (name in MOVES and name not in _AS_THEY_LIE | _SAME_AXES)
    mixes = name in PLACED or name in ("where", "masked_fill")
    return frozenset(range(-ndim, 0)) if (axes and anew) or (mixes and _several(given)) else axes
