"""Operations that give events back as they are, whatever the spikes are: ReLU of spikes, a clamp beyond their range.

That an operation changed nothing of the images at hand says nothing of others: a ReLU of a difference of spikes clips
none of some. So it is asked what the values can be.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from isofire.firing.cost.events.call import Call
from isofire.firing.cost.events.events import LEVELS, NONE, Events
from isofire.firing.cost.events.forms import SIGN

_OF_POSITIVE = frozenset(("relu", "abs", "leaky_relu", "elu", "_prelu_kernel", "prelu", "rrelu_with_noise"))
_OF_WHOLE = frozenset(("round", "floor", "ceil", "trunc"))
_OF_ZERO_AND_ONE = frozenset(("sign", "sqrt", "square", "mul"))
_LIMITS = {
    "clamp": (1, 2), "hardtanh": (1, 2), "clamp_min": (1, None), "clamp_max": (None, 1), "maximum": (1, None),
    "minimum": (None, 1),
}  # fmt: skip
"""Operation -> which of its arguments are the least and the largest value that it gives."""


def unchanged(call: Call) -> Events:
    """Events of the operand that an operation by elements gives back, where it gives every such operand back."""
    if not isinstance(call.output, Tensor) or torch.Tag.pointwise not in getattr(call.func, "tags", ()):
        return NONE
    driven = [x for x in call.tensors() if call.depends(x)]
    if call.name == "mul" and len(driven) == 2:
        driven = _without_sign(call, driven)
    x = driven[0] if driven else None
    if x is None or any(other is not x for other in driven):
        return NONE
    found = call.events(x)
    if found.count is None or x.dtype != call.output.dtype or x.shape != call.output.shape:
        return NONE
    # of spikes and real numbers side by side the real ones stay so
    same = (x == call.output) | ~found.count.detach().isfinite()
    return found if bool(same.all()) and _gives_back(call, x, found) else NONE


def _without_sign(call: Call, factors: list[Tensor]) -> list[Tensor]:
    """Of `x * x.sign()`, as in a pool over powers, x alone."""
    found = [x for x, sign in (factors, factors[::-1])
             if x.shape == sign.shape and bool((x >= 0).all()) and torch.equal(sign, x.sign())]  # fmt: skip
    # where nothing fires each is the other's sign
    found.sort(key=lambda x: (call.events(x).count is None, len(call.events(x).through)))
    return [found[0], found[0]] if found else factors


def _gives_back(call: Call, x: Tensor, found: Events) -> bool:
    name, (low, high) = call.name, _range(x, found)
    if name == "nan_to_num" or (name == "pow" and call.args[1] == 1):
        return True
    if name == "mul" and not all(item is x for item in call.tensors()):
        return True
    if name in _OF_POSITIVE:
        return low >= 0
    if name in _OF_WHOLE and found.whole:
        return True
    if name in _LIMITS:
        least, largest = _limits(call)
        return least <= low and high <= largest
    power = name == "pow" and isinstance(call.args[1], int | float) and call.args[1] > 0
    return (name in _OF_ZERO_AND_ONE or power) and found.whole and high <= 1


def _range(x: Tensor, found: Events) -> tuple[float, float]:
    """Between what the values lie, where neurons give at most one spike a step; infinite where that is not known."""
    forms, count = found.forms.values(), found.count
    assert count is not None
    if forms and all(form == (SIGN, 1.0) for form in forms):
        return -1.0, 1.0
    factors = [form.factor for form in forms if isinstance(form.factor, float)]
    counted = found.through or LEVELS in found.forms or any(form.terms <= 0 for form in forms)
    above, below = (True, True) if found.whole else _within(x, count.detach(), factors)
    told = len(factors) == len(forms)
    if found.whole or (told and above and all(factor > 0 for factor in factors)):
        low = 0.0
    else:
        low = _total(found, min) if told and above and not counted else -math.inf
    return low, _total(found, max) if told and below and not counted else math.inf


def _total(found: Events, extreme: Callable[[float, float], float]) -> float:
    """The least or the most that single spikes add up to."""
    return sum(
        extreme(form.factor * form.terms, 0.0) for form in found.forms.values() if isinstance(form.factor, float)
    )


def _within(x: Tensor, count: Tensor, factors: list[float]) -> tuple[bool, bool]:
    """Whether the values are not below, and not above, what the events alone bring, as an offset would have them;
    windows of adaptive pools differ by one element."""
    values, known = x.detach(), count.isfinite()
    low, high = min(factors, default=0.0), max(factors, default=0.0)
    least, largest = low * (0.4 if low > 0 else 2.5) * count, high * (2.5 if high > 0 else 0.4) * count
    return bool((values >= least - 1e-6)[known].all()), bool((values <= largest + 1e-6)[known].all())


def _limits(call: Call) -> tuple[float, float]:
    first, second = _LIMITS[call.name]
    lower, upper = ("min", "max") if call.name != "hardtanh" else ("min_val", "max_val")
    usual = (-1.0, 1.0) if call.name == "hardtanh" else (None, None)
    least, largest = (
        call.options.get(key, usual[i] if place is None or place >= len(call.args) else call.args[place])
        for i, (place, key) in enumerate(((first, lower), (second, upper)))
    )
    return _number(least, torch.amax, -math.inf), _number(largest, torch.amin, math.inf)


def _number(limit: Any, extreme: Any, none: float) -> float:
    if limit is None:
        return none
    return float(extreme(limit)) if isinstance(limit, Tensor) else float(limit)
