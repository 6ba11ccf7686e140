"""How events pass through the operations between neurons and weights.

Rules are by torch's own (aten) operations, of which a network's code, whatever its modules are called, is made. What no
rule knows gives a tensor without events, so that a layer behind it counts as multiplying: dearer, and shown as such.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from isofire.firing.cost.events import NONE, Events, Source

MOVES = frozenset((
    "cat", "stack", "clone", "contiguous", "_to_copy", "_copy_from", "copy", "index", "index_select", "gather",
    "take", "roll", "flip", "repeat", "constant_pad_nd", "reflection_pad1d", "reflection_pad2d", "reflection_pad3d",
    "replication_pad1d", "replication_pad2d", "replication_pad3d", "pixel_shuffle", "pixel_unshuffle",
    "channel_shuffle", "upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d", "im2col", "unsafe_split",
    "unsafe_split_with_sizes", "split_with_sizes_copy", "tril", "triu", "unfold_copy", "lift_fresh_copy",
    "repeat_interleave", "_reshape_copy", "_unsafe_view", "_reshape_alias", "masked_select",
))  # fmt: skip
"""Elements come to other places, as they are."""
PLACED = {
    "index_put": 2, "_unsafe_index_put": 2, "_index_put_impl": 2, "put": 2, "scatter": 3, "scatter_add": 3,
    "index_add": 3, "index_copy": 3, "masked_scatter": 2, "slice_scatter": 1, "select_scatter": 1,
    "diagonal_scatter": 1, "as_strided_scatter": 1,
}  # fmt: skip
"""Operation that writes or adds one tensor's elements into another -> place of what is written."""
SUMS = frozenset(("sum", "cumsum", "col2im", "trace"))
MEANS = frozenset(("mean",))
AVERAGE_POOLS = frozenset(("avg_pool1d", "avg_pool2d", "avg_pool3d"))
ADAPTIVE_POOLS = frozenset(
    ("_adaptive_avg_pool2d", "_adaptive_avg_pool3d", "adaptive_avg_pool1d", "adaptive_avg_pool2d")
)
NORMS = frozenset((
    "native_batch_norm", "cudnn_batch_norm", "miopen_batch_norm", "_native_batch_norm_legit",
    "_native_batch_norm_legit_no_training", "batch_norm", "_batch_norm_with_update", "_batch_norm_no_update",
))  # fmt: skip
"""In eval mode a factor and an offset a channel, which fold into the weights that follow."""
COUNTED_ANEW = frozenset((
    "max_pool1d", "max_pool2d", "max_pool3d", "max_pool2d_with_indices", "max_pool3d_with_indices",
    "adaptive_max_pool2d", "adaptive_max_pool3d", "max_pool1d_with_indices", "mkldnn_max_pool2d", "amax", "max",
    "maximum", "minimum", "amin", "min", "mul", "gt", "ge", "lt", "le", "eq", "ne", "logical_and", "logical_or",
    "logical_xor", "logical_not", "bitwise_and", "bitwise_or", "bitwise_xor", "bitwise_not", "sign", "floor", "ceil",
    "round", "trunc", "clamp", "clamp_min", "clamp_max", "relu", "hardtanh", "where", "sort", "topk", "prod", "abs",
    "heaviside", "masked_fill", "remainder", "fmod", "div", "sub", "rsub", "scatter", "scatter_reduce", "index_fill",
))  # fmt: skip
"""Not linear, yet what they make of whole numbers may be whole numbers: then those are the events that go on."""
_CHOOSING = frozenset(("mul", "where", "masked_fill", "logical_and", "bitwise_and", "scatter", "index_fill"))
"""Of those, by a mask or by places that are no events themselves."""
_NORMALISING = NORMS | {"mul", "div", "add", "sub", "rsub"}
FACTORLESS = frozenset(("neg", "positive", "conj", "real", "alias", "detach"))


@dataclass(frozen=True)
class Call:
    """One operation that has been done.

    Parameters
    ----------
    name
        Of the operation, without the underscore of one that works in place.
    args, options
        As given; tensors that were written in place are as they were before.
    output
        Its first result, or list of results.
    events, source
        Of a tensor, before the operation.
    """

    name: str
    func: Any
    args: Sequence[Any]
    options: dict[str, Any]
    output: Any
    events: Callable[[Tensor], Events]
    source: Callable[[Tensor], Source]

    def depends(self, x: Any) -> bool:
        """Whether it is a tensor that comes from the input or from spikes."""
        return isinstance(x, Tensor) and self.source(x) >= Source.INPUT


def propagate(call: Call) -> Events | list[Events]:
    """Events of the operation's first result, or of each where it gives a list.

    Whole numbers of the input that are scaled or shifted to real ones are pixels that are normalised, and no events.
    """
    found = _passed_on(call)
    if call.name not in _NORMALISING or isinstance(found, list) or found.whole or found.count is None:
        return found
    given = [x for x in tree_leaves(call.args) if isinstance(x, Tensor)]
    return NONE if max(map(call.source, given), default=Source.INPUT) == Source.INPUT else found


def _passed_on(call: Call) -> Events | list[Events]:
    if call.name in MOVES:
        return _moved(call)
    if call.name in PLACED and call.depends(call.args[PLACED[call.name]]):
        return _placed(call)
    if call.name in ("where", "masked_fill") and call.args and not call.depends(call.args[_mask_place(call)]):
        return _chosen(call)
    first = call.args[0] if call.args else None
    own = call.events(first) if isinstance(first, Tensor) else NONE
    if call.name in SUMS and own.count is not None:
        return Events(call.func(_own(call, own.count), *call.args[1:], **_without_dtype(call)), own.whole, own.through)
    if call.name in MEANS and own.count is not None:
        total = torch.sum(own.count, *call.args[1:3]) if len(call.args) > 1 else own.count.sum()
        return Events(total, False, own.through)
    if call.name in AVERAGE_POOLS and own.count is not None:
        return Events(_pooled(call, own.count), _divisor(call) == 1 and own.whole, own.through)
    if call.name in ADAPTIVE_POOLS and own.count is not None:
        return Events(_adaptive(call, own.count), False, own.through)
    if call.name in NORMS and own.count is not None and not _training(call):
        return Events(own.count, False, own.through)
    if call.name in FACTORLESS and own.count is not None:
        return Events(own.count, call.name != "neg" and own.whole, own.through)
    if call.name in ("add", "sub", "rsub"):
        found = _added(call)
    elif call.name in ("mul", "div"):
        found = _scaled(call)
    else:
        found = _unchanged(call)
    return _anew(call) if found.count is None else found


def _moved(call: Call) -> Events | list[Events]:
    """The operation, done to the events of what it was done to."""
    name, args = call.name, list(call.args)
    if name == "copy":
        target, source = args[0], args[1]
        held = _zeros_or_events(call, source)
        if held.count is None:
            return NONE
        return Events(held.count.expand(target.shape), held.whole, held.through)
    place = args[0]
    parts = [_zeros_or_events(call, x) for x in (place if isinstance(place, list | tuple) else [place])]
    if any(part.count is None for part in parts):
        return NONE
    counts = [_own(call, part.count) for part in parts if part.count is not None]
    whole = all(part.whole for part in parts)
    through = frozenset[str]().union(*(part.through for part in parts))
    if any(map(call.depends, tree_leaves(args[1:]))):
        # which elements go on is chosen by the image, and so is not the same for all
        through |= {name}
    if name == "constant_pad_nd":
        result = call.func(counts[0], args[1])
    elif name in ("_to_copy", "contiguous", "clone", "lift_fresh_copy"):
        result = counts[0]
    else:
        result = call.func(counts if isinstance(place, list | tuple) else counts[0], *args[1:], **call.options)
    if isinstance(result, list | tuple):
        return [Events(item, whole, through) for item in result]
    return Events(result, whole, through)


def _placed(call: Call) -> Events:
    """The operation, done to the events of what is written and of what it is written into."""
    args, place = list(call.args), PLACED[call.name]
    into, written = _zeros_or_events(call, args[0]), _zeros_or_events(call, args[place])
    if into.count is None or written.count is None or call.options.get("alpha", 1) != 1:
        return NONE
    through = into.through | written.through
    if any(map(call.depends, tree_leaves(args[1:place]))):
        through |= {call.name}
    args[0], args[place] = into.count.clone(), written.count
    return Events(call.func(*args, **call.options), into.whole and written.whole, through)


def _zeros_or_events(call: Call, x: Tensor) -> Events:
    """Events of a tensor; a constant has none, which is known, and a tensor of unknown events none that are known."""
    found = call.events(x)
    if found.count is None and not call.depends(x):
        # an offset that is a whole number keeps sums whole; any other makes values differ from their counts
        return Events(torch.zeros(x.shape, dtype=torch.float64, device=x.device), not bool(x.any()))
    return found


def _own(call: Call, count: Tensor) -> Tensor:
    """The count, for an operation that may write into it."""
    return count.clone() if call.func._schema.is_mutable else count


def _mask_place(call: Call) -> int:
    return 0 if call.name == "where" else 1


def _chosen(call: Call) -> Events:
    """`where` by a mask that is a constant."""
    if len(call.args) < 3:
        return NONE
    mask, first, second = call.args if call.name == "where" else (call.args[1], call.args[2], call.args[0])
    parts = []
    for x in (first, second):
        constant = Events(torch.zeros((), dtype=torch.float64, device=mask.device), x == 0)
        parts.append(_zeros_or_events(call, x) if isinstance(x, Tensor) else constant)
    if any(part.count is None for part in parts):
        return NONE
    count = torch.where(mask, parts[0].count, parts[1].count)
    return Events(count, parts[0].whole and parts[1].whole, parts[0].through | parts[1].through)


def _added(call: Call) -> Events:
    """Events of a sum or difference: those of both sides; a constant is an offset."""
    parts, whole = [], call.name == "add" and call.options.get("alpha", 1) == 1
    through: frozenset[str] = frozenset()
    for x in call.args[:2]:
        if not call.depends(x):
            whole = whole and not (bool(x.any()) if isinstance(x, Tensor) else x != 0)
            continue
        found = call.events(x)
        if found.count is None:
            return NONE
        parts.append(found.count)
        whole, through = whole and found.whole, through | found.through
    return Events(sum(parts[1:], parts[0]), whole, through) if parts else NONE


def _scaled(call: Call) -> Events:
    """Times a constant: a whole number multiplies whole numbers, a zero takes events away, any other leaves them."""
    a, b = call.args[:2]
    if call.depends(a) and call.depends(b):
        return _unchanged(call)
    x, factor = (a, b) if call.depends(a) else (b, a)
    found = call.events(x) if isinstance(x, Tensor) else NONE
    if found.count is None or (call.name == "div" and x is not a):
        return NONE
    factor = torch.as_tensor(factor, dtype=torch.float64, device=found.count.device)
    if call.name == "div":
        factor = 1 / factor
    if found.whole and bool((factor >= 0).all()) and torch.equal(factor, factor.round()):
        return Events(found.count * factor, True, found.through)
    return Events(found.count * (factor != 0), False, found.through)


def _unchanged(call: Call) -> Events:
    """Where an operation gave one of its operands back: ReLU of spikes, a power of 1, a clamp that clamps nothing."""
    if not isinstance(call.output, Tensor) or torch.Tag.pointwise not in getattr(call.func, "tags", ()):
        return NONE
    for x in call.args:
        if not isinstance(x, Tensor) or x.dtype != call.output.dtype:
            continue
        found = call.events(x)
        if found.count is not None and x.shape == call.output.shape and torch.equal(x, call.output):
            return found
    return NONE


def _anew(call: Call) -> Events:
    """Whole numbers made of events in a way that is not linear, counted by their values."""
    # with the indices of its maxima, or of a sorted order
    output = call.output[0] if isinstance(call.output, tuple) else call.output
    if call.name not in COUNTED_ANEW or not isinstance(output, Tensor):
        return NONE
    operands = [x for x in call.args if isinstance(x, Tensor) and call.depends(x)]
    found = [call.events(x) for x in operands]
    others = [x for x, item in zip(operands, found, strict=True) if item.count is None]
    chosen = call.name in _CHOOSING and all(map(is_whole, others))
    if len(others) == len(found) or (others and not chosen) or not is_whole(output):
        return NONE
    through = frozenset((call.name,)).union(*(item.through for item in found))
    return Events(output.detach().double(), True, through)


def is_whole(x: Tensor) -> bool:
    """Whether every value is a count: 0, 1, 2, ... (spikes, and sums of spikes)."""
    if x.dtype == torch.bool or x.is_complex():
        return not x.is_complex()
    return bool((x >= 0).all()) and bool((x == x.round()).all())


def _without_dtype(call: Call) -> dict[str, Any]:
    return {key: value for key, value in call.options.items() if key != "dtype"}


def _divisor(call: Call) -> int | None:
    kernel = call.args[1]
    size = math.prod(kernel) if len(kernel) > 1 else kernel[0] ** (call.args[0].ndim - 2)
    return call.args[6] if len(call.args) > 6 and call.args[6] is not None else size


def _pooled(call: Call, count: Tensor) -> Tensor:
    """The sum over each window."""
    args = list(call.args[1:]) + [None] * 6
    kernel, stride, padding, ceil_mode = args[0], args[1] or args[0], args[2] or 0, bool(args[3])
    if call.name == "avg_pool1d":
        pooled = torch.nn.functional.avg_pool1d(count, kernel, stride, padding, ceil_mode)
        ones = torch.nn.functional.avg_pool1d(torch.ones_like(count), kernel, stride, padding, ceil_mode)
        return pooled * kernel[0] if not ceil_mode else pooled / ones * kernel[0]
    pool = torch.nn.functional.avg_pool2d if call.name == "avg_pool2d" else torch.nn.functional.avg_pool3d
    return pool(count, kernel, stride, padding, ceil_mode, True, 1)


def _adaptive(call: Call, count: Tensor) -> Tensor:
    """The sum over each window, whose sizes differ where they do not divide the map."""
    pooled = call.func(count, *call.args[1:])
    for axis in range(1, len(call.args[1]) + 1):
        size, windows = count.shape[-axis], pooled.shape[-axis]
        ends = [-(-(i + 1) * size // windows) - i * size // windows for i in range(windows)]
        lengths = torch.tensor(ends, dtype=torch.float64, device=count.device)
        pooled = pooled * lengths.view(-1, *[1] * (axis - 1))
    return pooled if pooled.requires_grad else pooled.round()


def _training(call: Call) -> bool:
    """Whether a batch norm uses the batch's own statistics."""
    if call.name in ("_native_batch_norm_legit_no_training", "_batch_norm_no_update"):
        return False
    return len(call.args) <= 5 or not isinstance(call.args[3], Tensor) or bool(call.args[5])
