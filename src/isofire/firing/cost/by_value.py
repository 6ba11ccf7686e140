"""Events that only the values of an operation's result tell."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from isofire.firing.cost.call import Call
from isofire.firing.cost.events import NONE, Events, Source, counted, is_whole
from isofire.firing.cost.operations import CHOOSING, ROUNDING, SCATTERING, SUMS_OF_TWO
from isofire.firing.cost.picked import picked


def unchanged(call: Call) -> Events:
    """Where an operation gave one of its operands back: ReLU of spikes, a power of 1, a clamp that clamps nothing."""
    if not isinstance(call.output, Tensor) or torch.Tag.pointwise not in getattr(call.func, "tags", ()):
        return NONE
    for x in call.args:
        if not isinstance(x, Tensor) or x.dtype != call.output.dtype:
            continue
        found = call.events(x)
        if found.count is not None and x.shape == call.output.shape and torch.equal(x, call.output):
            # a mask that the image makes drops nothing of some images alone
            return NONE if _masked_by_the_image(call, x) else found
    return NONE


def _masked_by_the_image(call: Call, x: Tensor) -> bool:
    return any(other is not x and call.source(other) == Source.INPUT for other in call.tensors())


def counted_anew(call: Call) -> Events:
    """Whole numbers counted by their values: what is made of events in a way that is not linear, and what a network
    itself rounds, compares or draws of real numbers; of scaled spikes those that a maximum picks."""
    found = _by_values(call)
    return picked(call) if found.count is None else found


def _by_values(call: Call) -> Events:
    # with the indices of its maxima, or of a sorted order
    output = call.output[0] if isinstance(call.output, tuple | list) and call.output else call.output
    if not isinstance(output, Tensor) or output.layout is not torch.strided:
        return NONE
    operands = [x for x in call.args if isinstance(x, Tensor) and call.depends(x)]
    found = [call.events(x) for x in operands]
    if not _is_rounded(call, output):
        others = [x for x, item in zip(operands, found, strict=True) if item.count is None]
        if len(others) == len(found) or (others and not (call.name in CHOOSING and all(map(is_whole, others)))):
            return NONE
        if call.name in SUMS_OF_TWO and not all(item.whole for item in found):
            return NONE
    through = frozenset((call.name,)).union(*(item.through for item in found))
    return counted(output, f"{call.place} {call.name}", through)


def _is_rounded(call: Call, output: Tensor) -> bool:
    """Whether the operation gives whole numbers whatever it is given: integers, truths, constants put somewhere."""
    if not (output.is_floating_point() or output.is_complex()) or call.name in ROUNDING:
        return True
    if call.name == "div":
        return bool(call.options.get("rounding_mode"))
    return call.name in SCATTERING and not any(
        call.depends(x) and x.is_floating_point() for x in tree_leaves(call.args) if isinstance(x, Tensor)
    )
