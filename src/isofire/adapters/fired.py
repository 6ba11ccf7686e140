"""What a neuron gave in one call: where its spikes are in that, and how high they are."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any
from weakref import WeakKeyDictionary, ref

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from isofire.adapters.base import Adapter
from isofire.errors import ModelError
from isofire.running import tensors_in

_NEAR = 1e-6
_DIGIT = 16
_LAID_OUT: WeakKeyDictionary[nn.Module, dict[tuple[Any, ...], Callable[[], Adapter | None]]] = WeakKeyDictionary()
"""Neurons -> what of their outputs was found to be laid out, and scaled, by an adapter, for as long as that lives."""


class Fired:
    """One call of a neuron.

    Parameters
    ----------
    module, adapter
        The neuron, and what knows its kind.
    output
        What it returned: its spikes, or a tuple, list or dictionary that holds them wherever the adapter finds them.

    Attributes
    ----------
    module, adapter, output
        As given.
    values
        The tensor of the output that holds the spikes, in the neuron's own axes and heights.

    Raises
    ------
    ModelError
        If the adapter's spikes come of several of its tensors, or of none, or are not just laid out and scaled.
    """

    def __init__(self, module: nn.Module, adapter: Adapter, output: Any) -> None:
        self.module, self.adapter, self.output = module, adapter, output
        self.values = self._find()
        self._require_layout()

    @property
    def spikes(self) -> Tensor:
        """As the adapter gives them, [T, N, ...]."""
        return self.adapter.spikes(self.module, self.output)

    def with_values(self, values: Tensor) -> Any:
        """What the neuron returned, with other numbers where its spikes are."""
        return self._with(self.values, values)

    def as_spikes(self, values: Tensor) -> Tensor:
        """Numbers laid out as `values`, as the adapter gives spikes, [T, N, ...]."""
        return self.adapter.spikes(self.module, self.with_values(values))

    def in_order(self, values: Tensor) -> Tensor:
        """Numbers laid out as `values`, as they are in the order of its spikes, [T, N, ...]."""
        # an adapter may divide by the height of each neuron's spikes
        return self.as_spikes(values) / self.as_spikes(torch.ones_like(values))

    @cached_property
    def heights(self) -> Tensor:
        """What a spike is in `values`: one number, float64, 1 but for graded spikes; of their shape where neurons of a
        layer have heights of their own."""
        # a third in half precision is further from it
        scale = self.as_spikes(torch.ones_like(self.values, dtype=torch.float64)).detach()
        # a third in float32 is no third, and an adapter may give half precision
        room = max(_NEAR, torch.finfo(scale.dtype).eps) if scale.is_floating_point() else _NEAR
        heights = 1 / scale.double()
        near = (heights - heights.round()).abs() <= room * heights.abs()
        heights = torch.where(near, heights.round(), heights)
        if bool((heights == heights.flatten()[0]).all()):
            return heights.flatten()[0]
        found = torch.empty(self.values.numel(), dtype=torch.float64, device=self.values.device)
        found[self._places.flatten()] = heights.flatten()
        return found.view(self.values.shape)

    @cached_property
    def step_of_each(self) -> Tensor:
        """Of each of `values` which of the call's steps it is of; int64 of the same shape."""
        found = torch.zeros(self.values.numel(), dtype=torch.int64, device=self.values.device)
        for step, its in enumerate(self._places):
            found[its.flatten()] = step
        return found.view(self.values.shape)

    @cached_property
    def _places(self) -> Tensor:
        """In the order of spikes, where each of `values` lies among them; an adapter may give a copy."""
        places = torch.arange(self.values.numel(), device=self.values.device).view(self.values.shape)
        found, unit = torch.zeros((), dtype=torch.int64, device=self.values.device), 1
        # digit by digit, since an adapter may give bytes or half precision
        while unit == 1 or unit < self.values.numel():
            found = found + self.in_order((places // unit % _DIGIT).double()).round().long() * unit
            unit *= _DIGIT
        return found

    def _find(self) -> Tensor:
        """The one tensor of the output on which the adapter's spikes hang."""
        spikes = self.spikes
        if not isinstance(spikes, Tensor) or spikes.is_complex():
            made = "complex numbers" if isinstance(spikes, Tensor) else type(spikes).__name__
            raise self._not_found(made)
        strided = (x for x in tensors_in(self.output) if x.layout is torch.strided)
        tensors = {id(x): x for x in strided}.values()
        found = [x for x in tensors if x.data_ptr() == spikes.data_ptr() and x.numel() == spikes.numel()]
        if not spikes.numel() and (empty := [x for x in tensors if not x.numel()]):
            return empty[0]
        if len(found) != 1:
            # an adapter may give a copy, and a neuron two views of one memory
            found = [x for x in tensors if self._hang_on(x)]
        if len(found) != 1:
            raise self._not_found("spikes")
        return found[0]

    def _require_layout(self) -> None:
        known = _LAID_OUT.setdefault(self.module, {})
        what = id(self.adapter), self.values.shape, self.values.dtype, self.values.device
        if (what in known and known[what]() is self.adapter) or not self.values.numel():
            return
        none, count = self.as_spikes(torch.zeros_like(self.values, dtype=torch.float64)), self.values.numel()
        places = self._places.flatten()
        each = torch.zeros(count, dtype=torch.bool, device=places.device)
        if len(places) == count and int(places.min()) >= 0 and int(places.max()) < count:
            each[places] = True
        # as large as all numbers, and seldom asked again
        del self._places
        if bool((none != 0).any()) or not bool(each.all()):
            raise ModelError(
                "an adapter's spikes() must lay out and scale what a neuron gives, that of "
                f"{type(self.module).__name__} compares, cuts or joins it, so that operations of single numbers cannot "
                "be told; let spikes() give them as they are, divided by a spike's height if that is not 1"
            )
        known[what] = _reference(self.adapter)

    def _hang_on(self, x: Tensor) -> bool:
        none, all_ = (self.adapter.spikes(self.module, self._with(x, make(x)))
                      for make in (torch.zeros_like, torch.ones_like))  # fmt: skip
        return not torch.equal(none, all_)

    def _with(self, old: Tensor, new: Tensor) -> Any:
        return tree_map(lambda x: new if x is old else x, self.output)

    def _not_found(self, made: str) -> ModelError:
        return ModelError(
            "a neuron must give its spikes in one tensor, alone or in a tuple, list or dictionary; "
            f"{type(self.module).__name__} gives {type(self.output).__name__}, of which its adapter makes {made} in "
            "another way: let the adapter's spikes() take them from where the neuron gives them"
        )


def _reference(adapter: Adapter) -> Callable[[], Adapter | None]:
    """Weak, since an adapter may hold its neuron."""
    try:
        return ref(adapter)
    except TypeError:
        # of a class with slots alone
        return lambda: adapter
