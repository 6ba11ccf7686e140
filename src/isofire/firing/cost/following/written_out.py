"""What a network writes out by hand, which shows only in two operations together."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from isofire.firing.cost.events.call import Call
from isofire.firing.cost.events.events import Events, Source, storage_of
from isofire.firing.cost.following.contacts import Arrival
from isofire.firing.cost.following.distances import Distances
from isofire.firing.cost.following.gains import Gains
from isofire.firing.cost.following.stored import Stored
from isofire.firing.cost.following.uses import summed_axes, weighted_sum


class WrittenOut:
    """Of one forward pass: layers whose elements are scaled, then summed; spikes with another tensor's gradient.

    The second are `h - x.detach() + x` and its kind, whose value is that of `h` (a straight-through estimator).
    """

    def __init__(self) -> None:
        # held with their tensors, since the memory of one that is gone is given to others
        self._scaled: dict[int, tuple[Tensor, Tensor, Tensor]] = {}
        self._scaled_inside: dict[int, tuple[Tensor, Tensor, Tensor]] = {}
        self._gains = Gains()
        self._less: dict[int, tuple[Tensor, Tensor, Events]] = {}
        self._repeated: dict[int, tuple[Tensor, torch.Size]] = {}
        self._distances = Distances()

    def clear(self) -> None:
        """A new forward pass."""
        self._scaled.clear()
        self._gains.clear()
        self._repeated.clear()
        self._distances.clear()
        self._less.clear()

    def keep(self, call: Call) -> None:
        """Remember a product by elements with one weight an element, and a difference of events and real numbers."""
        self._keep_repeats(call)
        self._gains.keep(call)
        a, b = _both(call)
        if a is None or b is None or call.func._schema.is_mutable:
            return
        if call.name == "sub" and call.events(a).count is not None and call.depends(b):
            self._less[storage_of(call.output)._cdata] = call.output, b, call.events(a)
        if call.name != "mul":
            return
        x, weight = (a, b) if call.source(a) > call.source(b) else (b, a)
        if x.shape == call.output.shape and call.source(weight) == Source.WEIGHTS and weight.numel() > 1:
            self._scaled[storage_of(call.output)._cdata] = call.output, x, weight

    def scale_inside(self, args: Any, output: Tensor, source: Callable[[Tensor], Source]) -> None:
        """Remember a product by elements in a neuron: of its inputs of several steps with a weight for each, say."""
        if len(args) < 2 or not all(isinstance(x, Tensor) for x in args[:2]):
            return
        x, weight = args[:2] if source(args[0]) > source(args[1]) else args[1::-1]
        if x.shape == output.shape and source(weight) == Source.WEIGHTS < source(x):
            self._scaled_inside[storage_of(output)._cdata] = output, x, weight

    def leave_neuron(self) -> None:
        """What a neuron gives is no product of its weights."""
        self._scaled_inside.clear()

    def straight_through(self, call: Call) -> tuple[Events, Tensor | None] | None:
        """Events of `x - x`, which is nothing, and of `(h - x) + x`, which is h, with that difference; None for all
        else."""
        a, b = _both(call)
        if a is None or b is None or call.name not in ("add", "sub") or call.options.get("alpha", 1) != 1:
            return None
        if call.name == "sub":
            nothing = torch.zeros(a.shape, dtype=torch.float64, device=a.device)
            return (Events(nothing, True), None) if _same(a, b) else None
        for difference, other in ((a, b), (b, a)):
            found = self._less.get(storage_of(difference)._cdata)
            if found is not None and _same(difference, found[0]) and _same(other, found[1]):
                return found[2], difference
        return None

    def summed_up(self, name: str, args: Any) -> list[Arrival] | None:
        """A weighted sum: of elements scaled by weights that differ along what is summed."""
        x = args[0] if args else None
        scaled = self._scaled | self._scaled_inside
        if not scaled or not isinstance(x, Tensor) or x.layout is not torch.strided:
            return None
        product, given, weight = scaled.get(storage_of(x)._cdata, (None, None, None))
        if product is None or given is None or weight is None or product.shape != x.shape:
            return None
        spread = weight.expand(x.shape)
        # a neuron's first step is a sum of one
        alone = product is not self._scaled.get(storage_of(x)._cdata, (None,))[0] and weight.ndim == x.ndim
        lone = alone and name == "sum" and all(x.shape[axis] == 1 for axis in summed_axes(args))
        if product.stride() != x.stride() or not (lone or weighted_sum(name, args, spread)):
            return None
        ends = math.prod(x.shape[axis] for axis in summed_axes(args))
        return [Arrival(weight, x.numel(), given, 0, lambda ones: ones.expand(x.shape), "sum", ends)]

    def works(self, call: Call, found: Events | list[Events], stored: Stored) -> tuple[Sequence[Tensor], str] | None:
        """Weights whose work is done by the operation but is no layer that is counted, and how it is done."""
        if weights := self._gains.added_up(call, found, stored.has):
            return weights, "a weighted sum"
        weight = self._distances.worked(call, stored.is_part)
        return None if weight is None else ((weight,), f"{call.name} of differences or sums")

    def each_with_each(self, call: Call) -> list[Arrival]:
        """An outer product of activations by elements, in attention or weights that a network makes as it runs: each
        number of one is multiplied with several of the other."""
        factors = call.args[1:3] if call.name == "addcmul" else call.args[:2] if call.name == "mul" else ()
        if len(factors) < 2 or not all(map(call.depends, factors)) or call.output.layout is not torch.strided:
            return []
        products = torch.broadcast_shapes(*map(self._once, factors)).numel()
        return [Arrival(None, products)] if products > max(self._once(x).numel() for x in factors) else []

    def _once(self, x: Tensor) -> torch.Size:
        """Its shape, without what is only repeated there."""
        held = self._repeated.get(storage_of(x)._cdata)
        if held is not None and held[0].shape == x.shape:
            return held[1]
        return torch.Size(size if stride else 1 for size, stride in zip(x.shape, x.stride(), strict=True))

    def _keep_repeats(self, call: Call) -> None:
        """Remember which axes of a result repeat the same numbers, as those of what it was made of do."""
        output, given = call.output, [x for x in call.tensors() if call.depends(x)]
        if not isinstance(output, Tensor) or any(x.layout is not torch.strided for x in (output, *given)):
            return
        if call.func._schema.is_mutable and len(given) > 1:
            self._repeated.pop(storage_of(output)._cdata, None)
        if torch.Tag.pointwise not in call.func.tags and call.name not in ("clone", "linalg_vector_norm"):
            return
        if given and all(x.ndim == output.ndim for x in given):
            once = torch.Size(map(min, torch.broadcast_shapes(*map(self._once, given)), output.shape))
            if once.numel() < output.numel():
                self._repeated[storage_of(output)._cdata] = output, once


def _both(call: Call) -> tuple[Tensor | None, Tensor | None]:
    """The two tensors that an operation by elements is done to; None where they are not two."""
    a, b = call.args[:2] if len(call.args) > 1 else (None, None)
    strided = all(isinstance(x, Tensor) and x.layout is torch.strided for x in (a, b))
    return (a, b) if strided else (None, None)


def _same(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors hold the same numbers and not by chance, as zeros may."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    if storage_of(a)._cdata == storage_of(b)._cdata and a.storage_offset() == b.storage_offset():
        return a.stride() == b.stride()
    return torch.equal(a, b) and bool(a.any())
