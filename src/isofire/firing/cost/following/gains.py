"""Weights that scaled events element by element, until these are added up: a layer written out by hand."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from isofire.firing.cost.events.call import Call
from isofire.firing.cost.events.events import Events, Source, storage_of
from isofire.firing.cost.events.operations import (
    ADAPTIVE_POOLS,
    AVERAGE_POOLS,
    MEANS,
    MOVES,
    NORMS,
    PLACED,
    SUMS,
    SUMS_OF_TWO,
)  # fmt: skip
from isofire.running import tensors_in

_ADDS = SUMS | MEANS | AVERAGE_POOLS | ADAPTIVE_POOLS | SUMS_OF_TWO | frozenset(PLACED)
_FACTORS = {"mul": (0, 1), "div": (1,), "addcmul": (1, 2), "addcdiv": (2,), "lerp": (2,)} | dict.fromkeys(NORMS, (1,))
"""Operation -> places of what may scale the rest."""
_SCALING = frozenset(("mul", "div", "lerp"))
_Part = tuple[int, int]


class _Gain(NamedTuple):
    """Weights, and whether what they scaled was scaled again since, as a state that leaks is."""

    weight: Tensor
    again: bool = False


_Of = Mapping[_Part, _Gain]


class Gains:
    """Of one forward pass: of each memory, the weights by which events in it were scaled since the last neurons."""

    def __init__(self) -> None:
        # a memory to which a weak reference is held lends its address to no other
        self._held: dict[int, tuple[StorageWeakRef, _Of]] = {}

    def clear(self) -> None:
        """A new forward pass."""
        self._held.clear()

    def keep(self, call: Call) -> None:
        """Remember what an operation by elements, or one that moves or adds them, leaves scaled by which weights."""
        pointwise = torch.Tag.pointwise in getattr(call.func, "tags", ())
        if not (pointwise or call.name in MOVES or call.name in _ADDS or call.name in NORMS):
            return
        gains = _together(self._of_each(call))
        for output in tensors_in(call.output) if gains else ():
            if output.layout is torch.strided:
                # a part of a memory may be written while the rest of it stays
                before = self._of(output) if call.func._schema.is_mutable else {}
                memory = storage_of(output)
                self._held[memory._cdata] = StorageWeakRef(memory), {**before, **gains}

    def added_up(
        self, call: Call, found: Events | list[Events], is_stored: Callable[[Tensor], bool]
    ) -> Sequence[Tensor]:
        """Weights that scaled events which the operation adds up to real numbers, in another way than is counted as a
        layer. Two tensors are so added where each was scaled by a part of the weights, and not where one is a state
        that leaks: what it holds was scaled as the other is, and then again."""
        if isinstance(found, list) or found.count is not None or call.name not in _ADDS:
            return ()
        given = [x for x in call.tensors() if call.depends(x)]
        if not given or any(call.events(x).count is None for x in given):
            return ()
        gains = self._of_each(call)
        if call.name in SUMS_OF_TWO and (len(gains) != 2 or not _by_parts(gains[0], gains[1], is_stored)):
            return ()
        return [gain.weight for item in gains for gain in item.values()]

    def _of_each(self, call: Call) -> list[_Of]:
        """Of each tensor that is given, or of each that an operation adds up."""
        given = [x for x in call.tensors() if call.depends(x)]
        # what is written in place is given as it was, in a memory of its own
        first = call.args[0] if _writes_first(call) else None
        found = [self._of(call.output if x is first else x) for x in given]
        places = _FACTORS.get(call.name, ()) if any(call.events(x).count is not None for x in given) else ()
        own = {_part(x): _Gain(x) for x in (call.args[place] for place in places if place < len(call.args))
               if isinstance(x, Tensor) and call.source(x) == Source.WEIGHTS}  # fmt: skip
        if call.name.startswith("addc") and call.depends(call.args[0]):
            kept, *factors = found
            return [kept, _together([own, *factors])]
        if call.name in _SCALING or call.name in NORMS:
            found = [{part: gain._replace(again=True) for part, gain in item.items()} for item in found]
        return [{**own, **item} for item in found]

    def _of(self, x: Tensor) -> _Of:
        return self._held[storage_of(x)._cdata][1] if storage_of(x)._cdata in self._held else {}


def _writes_first(call: Call) -> bool:
    """In place, and not into a tensor given as `out`."""
    alias = call.func._schema.arguments[0].alias_info if call.func._schema.is_mutable else None
    return alias is not None and alias.is_write


def _together(gains: Sequence[_Of]) -> dict[_Part, _Gain]:
    found: dict[_Part, _Gain] = {}
    for part, gain in itertools.chain.from_iterable(item.items() for item in gains):
        found[part] = gain._replace(again=gain.again or (part in found and found[part].again))
    return found


def _by_parts(one: _Of, other: _Of, is_stored: Callable[[Tensor], bool]) -> bool:
    """Whether two tensors were scaled by parts of the same weights, or each by weights that the model holds."""
    if any(one[part].again or other[part].again for part in one.keys() & other.keys()):
        return False

    def taken(x: Tensor) -> bool:
        return is_stored(x) or x.numel() * x.element_size() < x.untyped_storage().nbytes()

    last = [{part: gain.weight for part, gain in item.items() if not gain.again} for item in (one, other)]
    return any(a[0] == b[0] or (taken(last[0][a]) and taken(last[1][b])) for a, b in itertools.product(*last))


def _part(x: Tensor) -> _Part:
    return storage_of(x)._cdata, int(x.storage_offset()) if x.layout is torch.strided else 0
