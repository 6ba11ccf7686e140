"""Events of what is moved, copied, put together, or written into another tensor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from isofire.firing.cost.events.call import Call
from isofire.firing.cost.events.events import NONE, Events, real, spread
from isofire.firing.cost.events.forms import beside
from isofire.firing.cost.events.operations import PLACED
from isofire.running import tensors_in


def moved(call: Call) -> Events | list[Events]:
    """The operation, done to the events of what it was done to."""
    name, args = call.name, list(call.args)
    if name == "copy":
        target, source = args[0], args[1]
        held = _zeros_or_events(call, source)
        return held if held.count is None else replace(held, count=held.count.expand(target.shape))
    if name == "repeat_interleave" and call.func._overloadname == "Tensor":
        # places, by how often each is taken
        return NONE
    several = isinstance(args[0], list | tuple)
    given = args[0] if several else [args[0]]
    parts = [_zeros_or_events(call, x) for x in given]
    if name.startswith("repeat"):
        parts = [spread(part) for part in parts]
    driven = [part for part, x in zip(parts, given, strict=True) if call.depends(x)]
    if driven and all(part.count is None for part in driven):
        # a constant beside real numbers is an input as they are
        return NONE
    if name == "_to_copy" and _cut(call, parts[0]):
        return NONE
    counts = [_count_of(call, part, x) for part, x in zip(parts, given, strict=True)]
    whole, graded = _by_height(parts)
    through = frozenset[str]().union(*(part.through for part in parts))
    rows = _as_rows(call)
    forms = beside([part.forms for part in parts if rows or part.count is not None], rows)
    if any(map(call.depends, tensors_in(args[1:]))):
        # which elements go on is chosen by the image, and so is not the same for all
        through |= {name}
    if name == "constant_pad_nd":
        result = call.func(counts[0], args[1])
    elif name in ("_to_copy", "contiguous", "clone", "lift_fresh_copy"):
        result = counts[0]
    else:
        result = call.func(counts if several else counts[0], *args[1:], **call.options)
    if isinstance(result, list | tuple):
        return [Events(item, whole, through, forms, graded=graded) for item in result]
    return Events(result, whole, through, forms, graded=graded)


def placed(call: Call) -> Events:
    """The operation, done to the events of what is written and of what it is written into."""
    args, place = list(call.args), PLACED[call.name]
    into, written = _zeros_or_events(call, args[0]), _zeros_or_events(call, args[place])
    if into.count is None or written.count is None or call.options.get("alpha", 1) != 1:
        return NONE
    through = into.through | written.through
    if any(map(call.depends, tensors_in(args[1:place]))):
        through |= {call.name}
    args[0], args[place] = into.count.clone(), written.count
    forms = beside([into.forms, written.forms], rows=True)
    whole, graded = _by_height((into, written))
    return Events(call.func(*args, **call.options), whole, through, forms, graded=graded)


def chosen(call: Call) -> Events:
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
    forms = beside([part.forms for part in parts], rows=True)
    whole, graded = _by_height(parts)
    return Events(count, whole, parts[0].through | parts[1].through, forms, graded=graded)


def _by_height(parts: Sequence[Events]) -> tuple[bool, bool]:
    """Whether tensors beside each other are whole, or else graded."""
    whole = all(part.whole for part in parts)
    return whole, not whole and all(part.by_height for part in parts)


def mask_place(call: Call) -> int:
    """Which argument of `where` or `masked_fill` is the mask."""
    return 0 if call.name == "where" else 1


def _zeros_or_events(call: Call, x: Tensor) -> Events:
    """Events of a tensor; a constant has none, which is known, and a tensor of unknown events none that are known."""
    found = call.events(x)
    if found.count is None and not call.depends(x):
        # an offset that is a whole number keeps sums whole; any other makes values differ from their counts
        return Events(torch.zeros(x.shape, dtype=torch.float64, device=x.device), not bool(x.any()))
    return found


def writable(call: Call, count: Tensor) -> Tensor:
    """The count, for an operation that may write into it."""
    return count.clone() if call.func._schema.is_mutable else count


def _count_of(call: Call, part: Events, x: Tensor) -> Tensor:
    if part.count is None:
        return torch.full(x.shape, real(call.source(x)), dtype=torch.float64, device=x.device)
    return writable(call, part.count)


def _cut(call: Call, part: Events) -> bool:
    """Whether numbers become integers or truths, and others by that."""
    if call.output.is_floating_point() or part.count is None:
        return False
    return not part.whole or (call.output.dtype == torch.bool and not torch.equal(part.count, call.output.double()))


def _as_rows(call: Call) -> bool:
    """Whether tensors are put together as steps or images, which meet the same weights."""
    if call.name != "cat":
        return call.name == "stack"
    axis = call.args[1] if len(call.args) > 1 else call.options.get("dim", 0)
    return axis in (0, -call.output.ndim) or all(x.shape[axis] == 1 for x in call.args[0] if x.ndim == call.output.ndim)
