"""How events pass through the operations between neurons and weights.

Rules are by torch's own (aten) operations, of which a network's code, whatever its modules are called, is made. What no
rule knows gives a tensor without events, so that a layer behind it counts as multiplying: dearer, and shown as such.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from isofire.firing.cost.events.averages import adaptively_pooled, mean_of, pooled, summed
from isofire.firing.cost.events.by_value import counted_anew
from isofire.firing.cost.events.call import Call
from isofire.firing.cost.events.events import LEVELS, NONE, Events, are_levels, is_whole
from isofire.firing.cost.events.factors import folded, scaled_by, times
from isofire.firing.cost.events.forms import mixed, uneven
from isofire.firing.cost.events.identity import unchanged
from isofire.firing.cost.events.moves import chosen, mask_place, moved, placed
from isofire.firing.cost.events.operations import (
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
from isofire.firing.cost.events.terms import added_up
from isofire.firing.cost.events.varying import varying


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
    normalised = call.name in NORMALISING and not found.whole and LEVELS in found.forms and not _is_turned(call, found)
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
    """As if factors went into weights whatever they are; NONE where no rule is known."""
    if call.name in MOVES:
        return moved(call)
    if call.name in PLACED and call.depends(call.args[PLACED[call.name]]):
        return placed(call)
    if call.name in ("where", "masked_fill") and call.args and not call.depends(call.args[mask_place(call)]):
        return chosen(call)
    first = call.args[0] if call.args else None
    own = call.events(first) if isinstance(first, Tensor) else NONE
    if call.name in SUMS_OF_TWO:
        found = added_up(call)
        if not found.through or found.whole or not is_whole(call.output):
            return found
        # what was counted by value goes on by value: a + b - a b is 1 where both fire
        again = counted_anew(call)
        return found if again.count is None else again
    if call.name in ("mul", "div"):
        return scaled_by(call)
    if own.count is None:
        return unchanged(call)
    if call.name in SUMS:
        return summed(call, own, own.count)
    if call.name in MEANS:
        return mean_of(call, own, own.count)
    if call.name in AVERAGE_POOLS:
        return pooled(call, own, own.count)
    if call.name in ADAPTIVE_POOLS:
        return adaptively_pooled(call, own, own.count)
    if call.name in NORMS and not _training(call):
        about = call.args[1] if isinstance(call.args[1], Tensor) else call.args[3]
        return folded(own, ("norm", about.untyped_storage()._cdata))
    if call.name in FACTORLESS:
        return times(own, -1.0 if call.name == "neg" else 1.0)
    return unchanged(call)


def _is_turned(call: Call, found: Events) -> bool:
    """Whether frames of -1, 0 and 1 are such again, with other signs."""
    if found.count is None or not isinstance(call.output, Tensor):
        return False
    count = found.count.detach()
    return torch.equal(call.output.detach().abs().double(), count) and bool((count <= 1).all())


def _training(call: Call) -> bool:
    """Whether a batch norm uses the batch's own statistics."""
    if call.name in ("_native_batch_norm_legit_no_training", "_batch_norm_no_update"):
        return False
    return len(call.args) <= 5 or not isinstance(call.args[3], Tensor) or bool(call.args[5])
