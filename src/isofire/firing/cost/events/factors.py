"""Factors by which events are multiplied: a chip folds them into the weights that the events come to."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from isofire.firing.cost.events.call import Call
from isofire.firing.cost.events.events import NONE, Events
from isofire.firing.cost.events.forms import height_of, key_of, scaled
from isofire.firing.cost.events.identity import unchanged


def times(found: Events, factor: Any) -> Events:
    """A whole number multiplies whole numbers, a zero takes events away, any other factor leaves them."""
    if found.count is None or (not isinstance(factor, Tensor) and factor == 1):
        return found
    factor = torch.as_tensor(factor, dtype=torch.float64, device=found.count.device)
    key = key_of(factor) if factor.numel() else 1.0
    mask = bool(((factor == 0) | (factor == 1)).all())
    if found.by_height and bool((factor >= 0).all()) and torch.equal(factor, factor.round()):
        forms = {} if key == 0 else found.forms if mask else scaled(found.forms, key)
        return Events(found.count * factor, found.whole, found.through, forms, graded=found.graded)
    result = folded(found, 1.0 if mask else key)
    count = None if result.count is None else result.count * (factor != 0)
    return replace(result, count=count, forms={} if key == 0 else result.forms)


def folded(own: Events, factor: Hashable, terms: float = 1.0) -> Events:
    """Times a factor that goes into the weights; so does the height of graded spikes, each of which is one event."""
    height = height_of(own.forms) if own.by_height else 1.0
    if own.count is None or height is None:
        return NONE
    count = own.count if height == 1 else _spikes_of(own.count, height)
    return Events(count, False, own.through, scaled(own.forms, factor, terms))


def scaled_by(call: Call) -> Events:
    """Times a constant."""
    a, b = call.args[:2]
    if call.depends(a) and call.depends(b):
        return unchanged(call)
    x, factor = (a, b) if call.depends(a) else (b, a)
    if not isinstance(x, Tensor) or (call.name == "div" and (x is not a or call.options.get("rounding_mode"))):
        return NONE
    if call.name == "div":
        factor = 1 / (factor.double() if isinstance(factor, Tensor) else factor)
    return times(call.events(x), factor)


def _spikes_of(count: Tensor, height: float) -> Tensor:
    """How many spikes of one height; NaN for what lies between, such as a sign of 0 to which 1 was added."""
    spikes = count / height
    return torch.where(spikes.detach() == spikes.detach().round(), spikes, torch.nan)
