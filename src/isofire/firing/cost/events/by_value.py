"""Events that only the values of an operation's result tell."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from isofire.firing.cost.events.call import Call
from isofire.firing.cost.events.events import NONE, Events, counted, is_whole, made_at
from isofire.firing.cost.events.forms import Form, key_of, sign_scale
from isofire.firing.cost.events.operations import CHOOSING, CLOSED, ROUNDING, SCATTERING, SUMS, SUMS_OF_TWO
from isofire.firing.cost.events.picked import picked
from isofire.running import tensors_in


def counted_anew(call: Call) -> Events:
    """Whole numbers counted by their values: what is made of events in a way that is not linear, and what a network
    itself rounds, compares or draws of real numbers; of scaled spikes those that a maximum picks."""
    found = _by_values(call)
    return picked(call) if found.count is None and not found.rounded else found


def _by_values(call: Call) -> Events:
    # with the indices of its maxima, or of a sorted order
    output = call.output[0] if isinstance(call.output, tuple | list) and call.output else call.output
    if not isinstance(output, Tensor) or output.layout is not torch.strided:
        return NONE
    operands = [x for x in call.tensors() if call.depends(x)]
    found = [call.events(x) for x in operands]
    if not _is_rounded(call, output):
        if not _is_closed(call):
            return NONE
        others = [x for x, item in zip(operands, found, strict=True) if item.count is None and not item.rounded]
        if len(others) == len(found) or (others and not (call.name in CHOOSING and all(map(is_whole, others)))):
            return NONE
        if not all(_is_integral(x, item, call.name) for x, item in zip(operands, found, strict=True)):
            return NONE
    through = frozenset((call.name,)).union(*(item.through for item in found))
    return counted(output, made_at(call.place, call.name), through)


def _is_closed(call: Call) -> bool:
    """Whether the operation gives whole numbers of whole numbers, and not by chance."""
    if call.name not in CLOSED or (call.name == "pow" and not _is_power(call.args[1])):
        return False
    leaves = tree_leaves((call.args, call.options))
    fixed = [x for x in leaves if isinstance(x, Tensor) and x.is_floating_point() and not call.depends(x)]
    numbers = [x for x in leaves if isinstance(x, float)]
    return all(math.isinf(x) or x.is_integer() for x in numbers) and all(bool((x == x.round()).all()) for x in fixed)


def _is_power(exponent: object) -> bool:
    return isinstance(exponent, int | float) and exponent >= 0


def _is_integral(x: Tensor, found: Events, name: str) -> bool:
    """Whether values are whole numbers because spikes are in them by whole factors."""
    if found.count is None or found.whole:
        return True
    if name in SUMS_OF_TWO or name in SUMS:
        return False
    factors = [form.factor for form in found.forms.values()]
    scales = [factor if isinstance(factor, float) else sign_scale(factor) for factor in factors]
    whole = all(scale is not None and scale.is_integer() for scale in scales)
    return whole and bool((x == x.round()).all())


def one_sided(found: Events, offset: Any, output: Tensor) -> Events:
    """Events of spikes of both signs to which their own height was added: those below 0 are none any more.

    Where the offset is another one, each goes on as an event, and the offset is part of a bias.
    """
    (layer, form), *others = found.forms.items() or [("", Form())]
    scale = sign_scale(form.factor)
    if found.count is None or others or scale is None or form.terms != 1:
        return found
    offset = key_of(torch.as_tensor(offset, dtype=torch.float64))
    if not isinstance(offset, float) or not math.isclose(abs(offset), abs(scale), rel_tol=1e-5):
        return found
    height, values = 2 * offset, output.detach().double()
    whole = height >= 1 and height.is_integer()
    levels = values if whole else values / height
    near = levels.round()
    # what a sign of 0 becomes lies halfway
    count = near.masked_fill((levels - near).abs() > 1e-3, torch.nan)
    count = torch.where(found.count.detach().isfinite(), count, found.count)
    return Events(count, whole, found.through, {layer: Form(height)})


def _is_rounded(call: Call, output: Tensor) -> bool:
    """Whether the operation gives whole numbers whatever it is given: integers, truths, constants put somewhere."""
    if not (output.is_floating_point() or output.is_complex()) or call.name in ROUNDING:
        return True
    if call.name == "div":
        return bool(call.options.get("rounding_mode"))
    return call.name in SCATTERING and not any(call.depends(x) and x.is_floating_point() for x in tensors_in(call.args))
