"""How events pass through the operations between neurons and weights.

Rules are by torch's own (aten) operations, of which a network's code, whatever its modules are called, is made. What no
rule knows gives a tensor without events, so that a layer behind it counts as multiplying: dearer, and shown as such.
"""

from __future__ import annotations

import math
from collections.abc import Hashable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from isofire.firing.cost.by_value import counted_anew, one_sided
from isofire.firing.cost.call import Call
from isofire.firing.cost.events import LEVELS, NONE, Events, are_levels, is_whole, real, spread
from isofire.firing.cost.forms import added, beside, height_of, key_of, mixed, scaled, uneven
from isofire.firing.cost.identity import unchanged
from isofire.firing.cost.operations import (
    ADAPTIVE_POOLS,
    AVERAGE_POOLS,
    FACTORLESS,
    MEANS,
    MOVES,
    NORMALISING,
    NORMS,
    PLACED,
    SUMS,
    SUMS_OF_TWO,
)  # fmt: skip
from isofire.firing.cost.varying import varying


def propagate(call: Call) -> Events | list[Events]:
    """Events of the operation's first result, or of each where it gives a list.

    Whole numbers of the input that are scaled or shifted to real ones are pixels that are normalised, and no events; of
    spikes beside them or added to them it is not known any more which they are.
    """
    passed = _passed_on(call)
    if isinstance(passed, list):
        return [varying(call, item) for item in passed]
    found = _of_the_image(call, varying(call, passed))
    if passed.count is None:
        found = counted_anew(call)
    normalised = call.name in NORMALISING and not found.whole and LEVELS in found.forms
    if found.count is None or normalised or (uneven(found.forms) and not found.whole):
        # of what is copied over nothing is left
        given = call.args[1:2] if call.name == "copy" else call.tensors()
        forms = mixed([found.forms, *(call.events(x).forms for x in given)])
        return Events(None, through=found.through if found.rounded else frozenset(), forms=forms, rounded=found.rounded)
    return found


def loses_spikes(call: Call, found: Events | list[Events]) -> bool:
    """Whether it makes numbers real of which some are spikes, and some levels."""
    if isinstance(found, list) or found.count is not None or call.name not in NORMALISING:
        return False
    given = [item for item in map(call.events, call.tensors()) if item.count is not None]
    return any(LEVELS in item.forms and not are_levels(item.forms) for item in given)


def _of_the_image(call: Call, found: Events) -> Events:
    """Real numbers that come from the image alone do so no longer where spikes may have been added to them."""
    if found.count is None or call.name in MOVES or call.name in NORMS:
        return found
    given = [x for x in call.tensors() if call.depends(x)]
    if len(given) == 1 and torch.Tag.pointwise in getattr(call.func, "tags", ()):
        return found
    mixed_up = found.count.detach().isinf()
    return replace(found, count=found.count.masked_fill(mixed_up, torch.nan)) if bool(mixed_up.any()) else found


def _passed_on(call: Call) -> Events | list[Events]:
    if call.name in MOVES:
        return _moved(call)
    if call.name in PLACED and call.depends(call.args[PLACED[call.name]]):
        return _placed(call)
    if call.name in ("where", "masked_fill") and call.args and not call.depends(call.args[_mask_place(call)]):
        return _chosen(call)
    first = call.args[0] if call.args else None
    own = call.events(first) if isinstance(first, Tensor) else NONE
    if call.name in SUMS_OF_TWO:
        found = _added(call)
        if not found.through or found.whole or not is_whole(call.output):
            return found
        # what was counted by value goes on by value: a + b - a b is 1 where both fire
        again = counted_anew(call)
        return found if again.count is None else again
    if call.name in ("mul", "div"):
        return _scaled(call)
    if own.count is None:
        return unchanged(call)
    if call.name in SUMS:
        return _summed(call, own, own.count)
    if call.name in MEANS:
        total = torch.sum(own.count, *call.args[1:3]) if len(call.args) > 1 else own.count.sum()
        return _averaged(own, total, own.count.numel() / max(total.numel(), 1))
    if call.name in AVERAGE_POOLS:
        window, divisor = _window(call)
        return _averaged(own, _pooled(call, own.count), window, divisor, whole=divisor == 1 and own.whole)
    if call.name in ADAPTIVE_POOLS:
        pooled = _adaptive(call, own.count)
        return _averaged(own, pooled, own.count.numel() / max(pooled.numel(), 1))
    if call.name in NORMS and not _training(call):
        about = call.args[1] if isinstance(call.args[1], Tensor) else call.args[3]
        return _folded(own, ("norm", about.untyped_storage()._cdata))
    if call.name in FACTORLESS:
        return _times(own, -1.0 if call.name == "neg" else 1.0)
    return unchanged(call)


def _summed(call: Call, own: Events, count: Tensor) -> Events:
    total = call.func(_own(call, count), *call.args[1:], **_without_dtype(call))
    # a running sum holds each element in all later ones
    terms = 0.0 if call.name == "cumsum" else count.numel() / max(total.numel(), 1)
    return Events(total, own.whole, own.through, scaled(own.forms, 1.0, terms))


def _averaged(own: Events, total: Tensor, terms: float, divisor: float | None = None, whole: bool = False) -> Events:
    summed = replace(own, count=total)
    if whole:
        return replace(summed, forms=scaled(own.forms, 1.0, terms))
    return _folded(summed, 1 / (divisor or max(terms, 1)), terms)


def _folded(own: Events, factor: Hashable, terms: float = 1.0) -> Events:
    """Times a factor that goes into the weights; so does the height of graded spikes, each of which is one event."""
    height = height_of(own.forms) if own.whole else 1.0
    if own.count is None or height is None:
        return NONE
    count = own.count if height == 1 else _spikes_of(own.count, height)
    return Events(count, False, own.through, scaled(own.forms, factor, terms))


def _spikes_of(count: Tensor, height: float) -> Tensor:
    """How many spikes of one height; NaN for what lies between, such as a sign of 0 to which 1 was added."""
    spikes = count / height
    return torch.where(spikes.detach() == spikes.detach().round(), spikes, torch.nan)


def _moved(call: Call) -> Events | list[Events]:
    """The operation, done to the events of what it was done to."""
    name, args = call.name, list(call.args)
    if name == "copy":
        target, source = args[0], args[1]
        held = _zeros_or_events(call, source)
        return held if held.count is None else replace(held, count=held.count.expand(target.shape))
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
    whole = all(part.whole for part in parts)
    through = frozenset[str]().union(*(part.through for part in parts))
    rows = _as_rows(call)
    forms = beside([part.forms for part in parts if rows or part.count is not None], rows)
    if any(map(call.depends, tree_leaves(args[1:]))):
        # which elements go on is chosen by the image, and so is not the same for all
        through |= {name}
    if name == "constant_pad_nd":
        result = call.func(counts[0], args[1])
    elif name in ("_to_copy", "contiguous", "clone", "lift_fresh_copy"):
        result = counts[0]
    else:
        result = call.func(counts if several else counts[0], *args[1:], **call.options)
    if isinstance(result, list | tuple):
        return [Events(item, whole, through, forms) for item in result]
    return Events(result, whole, through, forms)


def _count_of(call: Call, part: Events, x: Tensor) -> Tensor:
    if part.count is None:
        return torch.full(x.shape, real(call.source(x)), dtype=torch.float64, device=x.device)
    return _own(call, part.count)


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
    forms = beside([into.forms, written.forms], rows=True)
    return Events(call.func(*args, **call.options), into.whole and written.whole, through, forms)


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
    forms = beside([part.forms for part in parts], rows=True)
    return Events(count, parts[0].whole and parts[1].whole, parts[0].through | parts[1].through, forms)


def _added(call: Call) -> Events:
    """Events of a sum, difference or interpolation: those of both sides; a constant is an offset."""
    parts: list[Events] = []
    whole, offset = True, None
    for x, factor in _terms(call):
        if not call.depends(x):
            offset = x * factor
            whole = whole and not (bool(x.any()) if isinstance(x, Tensor) else x != 0)
            continue
        found = _times(call.events(x), factor)
        if found.count is None or call.depends(factor):
            return NONE
        parts.append(found)
    whole = whole and all(found.whole for found in parts)
    parts = parts if whole else [_folded(found, 1.0) for found in parts]
    forms = added((found.forms for found in parts), whole)
    counts = [found.count for found in parts if found.count is not None]
    if forms is None or not counts or len(counts) < len(parts):
        return NONE
    through = frozenset[str]().union(*(found.through for found in parts))
    found = Events(sum(counts[1:], counts[0]), whole, through, forms)
    return found if offset is None or len(parts) > 1 else one_sided(found, offset, call.output)


def _terms(call: Call) -> list[tuple[Any, Any]]:
    """What is added up, each with its factor."""
    a, b = call.args[:2]
    if call.name == "lerp":
        return [(a, 1 - call.args[2]), (b, call.args[2])]
    if call.name in ("addcmul", "addcdiv"):
        x, factor, value = b, call.args[2], call.options.get("value", 1)
        if call.name == "addcmul" and not call.depends(x):
            x, factor = factor, x
        if not call.depends(factor):
            factor = value / factor if call.name == "addcdiv" else value * factor
        return [(a, 1), (x, factor)]
    alpha = call.options.get("alpha", call.args[2] if len(call.args) > 2 else 1)
    return list(zip((a, b), {"add": (1, alpha), "sub": (1, -alpha)}.get(call.name, (-alpha, 1)), strict=True))


def _scaled(call: Call) -> Events:
    """Times a constant."""
    a, b = call.args[:2]
    if call.depends(a) and call.depends(b):
        return unchanged(call)
    x, factor = (a, b) if call.depends(a) else (b, a)
    if not isinstance(x, Tensor) or (call.name == "div" and (x is not a or call.options.get("rounding_mode"))):
        return NONE
    if call.name == "div":
        factor = 1 / (factor.double() if isinstance(factor, Tensor) else factor)
    return _times(call.events(x), factor)


def _times(found: Events, factor: Any) -> Events:
    """A whole number multiplies whole numbers, a zero takes events away, any other factor leaves them."""
    if found.count is None or (not isinstance(factor, Tensor) and factor == 1):
        return found
    factor = torch.as_tensor(factor, dtype=torch.float64, device=found.count.device)
    key = key_of(factor) if factor.numel() else 1.0
    mask = bool(((factor == 0) | (factor == 1)).all())
    if found.whole and bool((factor >= 0).all()) and torch.equal(factor, factor.round()):
        forms = {} if key == 0 else found.forms if mask else scaled(found.forms, key)
        return Events(found.count * factor, True, found.through, forms)
    folded = _folded(found, 1.0 if mask else key)
    count = None if folded.count is None else folded.count * (factor != 0)
    return replace(folded, count=count, forms={} if key == 0 else folded.forms)


def _without_dtype(call: Call) -> dict[str, Any]:
    return {key: value for key, value in call.options.items() if key != "dtype"}


def _window(call: Call) -> tuple[int, int]:
    """Elements of a window, and by what their sum is divided."""
    kernel = call.args[1]
    size = math.prod(kernel) if len(kernel) > 1 else kernel[0] ** (call.args[0].ndim - 2)
    return size, call.args[6] if len(call.args) > 6 and call.args[6] is not None else size


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
