"""What the tensors that neurons of a network's own code look at were before: copies, softened, less something."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from isofire.firing.cost.events.call import Call
from isofire.firing.cost.events.events import storage_of
from isofire.firing.cost.events.ways import Ways

_SOFTENING = frozenset((
    "_softmax", "_log_softmax", "_safe_softmax", "softmax", "log_softmax", "native_layer_norm", "native_group_norm",
    "rms_norm", "_fused_rms_norm",
))  # fmt: skip
"""The largest of what they give is the largest of what they are given, or, behind a norm's factors, is made of it."""

Memory = dict[Any, StorageWeakRef]
"""Where tensors lie, with weak references that are held so that no other has their addresses."""


class LookedAt:
    """Of one forward pass."""

    def __init__(self) -> None:
        # place of what was made of one tensor, number by number -> the place of the first of them
        self._roots: dict[Any, tuple[StorageWeakRef, Memory]] = {}
        # memory of a softmax or norm -> modules that keep what it is of from step to step
        self._softened: dict[int, tuple[StorageWeakRef, set[str]]] = {}
        # memory of a difference -> whose spikes are in what something was taken off
        self._less: dict[int, tuple[StorageWeakRef, set[str]]] = {}
        # memory -> how often it was written: a state that is updated in place is another afterwards
        self._written: dict[int, tuple[StorageWeakRef, int]] = {}

    def follow(self, call: Call, output: Tensor, driven: Sequence[tuple[Tensor, Ways]], states: set[str]) -> None:
        """An operation that is no product, on tensors that depend on the input.

        Parameters
        ----------
        states
            Modules that keep the first of these from step to step.
        """
        memory, own = StorageWeakRef(storage_of(output)), storage_of(output)._cdata
        self._less.pop(own, None)
        x, soft = driven[0][0], call.name in _SOFTENING
        pointwise = soft or torch.Tag.pointwise in getattr(call.func, "tags", ())
        one = len(driven) == 1 and x.numel() == output.numel()
        in_place = call.func._schema.is_mutable
        root = self.memory(output if in_place else x)
        if in_place:
            self._written[own] = memory, self._times_written(output) + 1
        if one and pointwise:
            if in_place or storage_of(x)._cdata != own:
                self._roots[self._place_of(output)] = memory, root
        else:
            self._roots.pop(self._place_of(output), None)
        # what is done number by number to a softmax is made of its state
        softened = self.softened(x) if one else set[str]()
        if soft or softened:
            self._softened[own] = memory, softened | (states if soft else set())
        else:
            self._softened.pop(own, None)

    def take_off(self, output: Tensor, makers: set[str]) -> None:
        """A difference of what holds the spikes of these and something else."""
        self._less[storage_of(output)._cdata] = StorageWeakRef(storage_of(output)), makers

    def put_back(self, difference: Tensor) -> set[str] | None:
        """Whose spikes were in what something was taken off; None where that is not known."""
        found = self._less.get(storage_of(difference)._cdata)
        return None if found is None else found[1]

    def softened(self, x: Tensor) -> set[str]:
        """Modules that keep from step to step what it is the softmax or norm of."""
        found = self._softened.get(storage_of(x)._cdata)
        return set() if found is None else found[1]

    def memory(self, x: Tensor) -> Memory:
        """Where lies what it was made of number by number, or itself."""
        found = self._roots.get(place := self._place_of(x))
        return {place: StorageWeakRef(storage_of(x))} if found is None else found[1]

    def _place_of(self, x: Tensor) -> Any:
        """Where it lies, and since when; parts of a memory are others."""
        part = (x.storage_offset(), x.shape) if x.layout is torch.strided else ()
        return storage_of(x)._cdata, self._times_written(x), *part

    def _times_written(self, x: Tensor) -> int:
        return self._written.get(storage_of(x)._cdata, (None, 0))[1]
