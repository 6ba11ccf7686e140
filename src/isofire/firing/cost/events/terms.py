"""Events of sums of two tensors."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from isofire.firing.cost.events.by_value import one_sided
from isofire.firing.cost.events.call import Call
from isofire.firing.cost.events.events import NONE, Events
from isofire.firing.cost.events.factors import folded, times
from isofire.firing.cost.events.forms import added


def added_up(call: Call) -> Events:
    """Events of a sum, difference or interpolation: those of both sides; a constant is an offset."""
    parts: list[Events] = []
    by_height, offset = True, None
    for x, factor in _terms(call):
        if not call.depends(x):
            offset = x * factor
            by_height = by_height and not (bool(x.any()) if isinstance(x, Tensor) else x != 0)
            continue
        found = times(call.events(x), factor)
        if found.count is None or call.depends(factor):
            return NONE
        parts.append(found)
    by_height = by_height and all(found.by_height for found in parts)
    whole = by_height and all(found.whole for found in parts)
    parts = parts if by_height else [folded(found, 1.0) for found in parts]
    forms = added((found.forms for found in parts), whole)
    counts = [found.count for found in parts if found.count is not None]
    if forms is None or not counts or len(counts) < len(parts):
        return NONE
    through = frozenset[str]().union(*(found.through for found in parts))
    found = Events(sum(counts[1:], counts[0]), whole, through, forms, graded=by_height and not whole)
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
