"""Weights that scaled events element by element, until these are added up: a layer written out by hand."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from isofire.firing.cost.call import Call
from isofire.firing.cost.events import Events, Source, storage_of
from isofire.firing.cost.operations import (
    ADAPTIVE_POOLS,
    AVERAGE_POOLS,
    MEANS,
    MOVES,
    NORMS,
    PLACED,
    SUMS,
    SUMS_OF_TWO,
)  # fmt: skip

_ADDS = SUMS | MEANS | AVERAGE_POOLS | ADAPTIVE_POOLS | SUMS_OF_TWO | frozenset(PLACED)
_FACTORS = {"mul": (0, 1), "div": (1,), "addcmul": (1, 2), "addcdiv": (2,), "lerp": (2,)} | dict.fromkeys(NORMS, (1,))
"""Operation -> places of what may scale the rest."""
_Part = tuple[int, int]


class Gains:
    """Of one forward pass: of each memory, the weights by which events in it were scaled since the last neurons."""

    def __init__(self) -> None:
        # held with their tensors, since the memory of one that is gone is given to others
        self._held: dict[int, tuple[Tensor, dict[_Part, Tensor]]] = {}

    def clear(self) -> None:
        """A new forward pass."""
        self._held.clear()

    def keep(self, call: Call) -> None:
        """Remember what an operation by elements, or one that moves or adds them, leaves scaled by which weights."""
        pointwise = torch.Tag.pointwise in getattr(call.func, "tags", ())
        if not (pointwise or call.name in MOVES or call.name in _ADDS or call.name in NORMS):
            return
        gains = {part: weight for item in self._of_each(call) for part, weight in item.items()}
        for output in tree_leaves(call.output) if gains else ():
            if isinstance(output, Tensor) and output.layout is torch.strided:
                # a part of a memory may be written while the rest of it stays
                before = self._of(output) if call.func._schema.is_mutable else {}
                self._held[storage_of(output)._cdata] = output, before | gains

    def added_up(
        self, call: Call, found: Events | list[Events], is_stored: Callable[[Tensor], bool]
    ) -> Sequence[Tensor]:
        """Weights that scaled events which the operation adds up to real numbers, in another way than is counted as a
        layer. Two tensors are so added where each is scaled by a part of the weights, and not where one is kept and
        scaled again, as a state that leaks is."""
        if isinstance(found, list) or found.count is not None or call.name not in _ADDS:
            return ()
        given = [x for x in call.tensors() if call.depends(x)]
        if not given or any(call.events(x).count is None for x in given):
            return ()
        gains = self._of_each(call)
        if call.name in SUMS_OF_TWO and (len(gains) != 2 or not _by_parts(*gains, is_stored)):
            return ()
        return [weight for item in gains for weight in item.values()]

    def _of_each(self, call: Call) -> list[dict[_Part, Tensor]]:
        """Of each tensor that is given, or of each that an operation adds up."""
        given = [x for x in call.tensors() if call.depends(x)]
        # what is written in place is given as it was, in a memory of its own
        first = call.args[0] if call.func._schema.is_mutable else None
        found = [self._of(call.output if x is first else x) for x in given]
        places = _FACTORS.get(call.name, ()) if any(call.events(x).count is not None for x in given) else ()
        own = {_part(x): x for x in (call.args[place] for place in places if place < len(call.args))
               if isinstance(x, Tensor) and call.source(x) == Source.WEIGHTS}  # fmt: skip
        if call.name.startswith("addc") and call.depends(call.args[0]):
            kept, *factors = found
            return [kept, {part: weight for item in (*factors, own) for part, weight in item.items()}]
        return [item | own for item in found]

    def _of(self, x: Tensor) -> dict[_Part, Tensor]:
        return self._held[storage_of(x)._cdata][1] if storage_of(x)._cdata in self._held else {}


def _by_parts(one: dict[_Part, Tensor], other: dict[_Part, Tensor], is_stored: Callable[[Tensor], bool]) -> bool:
    """Whether two tensors were scaled by the same weights, or each by weights that the model holds or by a part of
    some."""

    def taken(x: Tensor) -> bool:
        return is_stored(x) or x.numel() * x.element_size() < x.untyped_storage().nbytes()

    return any(a[0] == b[0] or (taken(one[a]) and taken(other[b])) for a, b in itertools.product(one, other))


def _part(x: Tensor) -> _Part:
    return storage_of(x)._cdata, int(x.storage_offset()) if x.layout is torch.strided else 0
