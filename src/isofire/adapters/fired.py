"""What a neuron gave in one call: where its spikes are in that, and how high they are."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from isofire.adapters.base import Adapter
from isofire.errors import ModelError

_NEAR = 1e-6


class Fired:
    """One call of a neuron.

    Parameters
    ----------
    output
        What it returned: its spikes, or a tuple, list or dictionary that holds them wherever the adapter finds them.

    Attributes
    ----------
    module, adapter, output
        As given.
    values
        The tensor of it that holds the spikes, in the neuron's own axes and heights.

    Raises
    ------
    ModelError
        If the adapter's spikes come of none of its tensors.
    """

    def __init__(self, module: nn.Module, adapter: Adapter, output: Any) -> None:
        self.module, self.adapter, self.output = module, adapter, output
        self.values: Tensor = output if isinstance(output, Tensor) else self._found()

    @property
    def spikes(self) -> Tensor:
        """As the adapter gives them, [T, N, ...]."""
        return self.adapter.spikes(self.module, self.output)

    def with_values(self, values: Tensor) -> Any:
        """What the neuron returned, with other numbers where its spikes are."""
        return tree_map(lambda x: values if x is self.values else x, self.output)

    def in_order(self, values: Tensor) -> Tensor:
        """Numbers laid out as `values`, as they are in the order of its spikes, [T, N, ...]."""
        # an adapter may divide by the height of each neuron's spikes
        return self.as_spikes(values) / self.as_spikes(torch.ones_like(values))

    @cached_property
    def heights(self) -> Tensor:
        """What a spike is in `values`: one number, float64, 1 but for graded spikes; of their shape where neurons of a
        layer have heights of their own."""
        heights = 1 / self.as_spikes(torch.ones_like(self.values)).detach().double()
        # a third in float32 is no third
        near = (heights - heights.round()).abs() <= _NEAR * heights.abs()
        heights = torch.where(near, heights.round(), heights)
        if bool((heights == heights.flatten()[0]).all()):
            return heights.flatten()[0]
        found = torch.empty(self.values.numel(), dtype=torch.float64, device=self.values.device)
        found[self._places().flatten()] = heights.flatten()
        return found.view(self.values.shape)

    @cached_property
    def step_of_each(self) -> Tensor:
        """Of each of `values` which of the call's steps it is of; int64 of the same shape."""
        found = torch.zeros(self.values.numel(), dtype=torch.int64, device=self.values.device)
        for step, its in enumerate(self._places()):
            found[its.flatten()] = step
        return found.view(self.values.shape)

    def _places(self) -> Tensor:
        """In the order of spikes, where each of `values` lies among them; an adapter may give a copy."""
        places = torch.arange(self.values.numel(), dtype=torch.float64, device=self.values.device)
        return self.in_order(places.view(self.values.shape)).round().long()

    def as_spikes(self, values: Tensor) -> Tensor:
        """Numbers laid out as `values`, as the adapter gives spikes, [T, N, ...]."""
        return self.adapter.spikes(self.module, self.with_values(values))

    def _found(self) -> Tensor:
        spikes = self.spikes
        if isinstance(spikes, Tensor):
            tensors = [x for x in tree_leaves(self.output) if isinstance(x, Tensor)]
            for self.values in tensors:
                if self.values.data_ptr() == spikes.data_ptr() and self.values.numel() == spikes.numel():
                    return self.values
            # an adapter may give a copy: the tensor on which it hangs
            for self.values in tensors:
                if not torch.equal(self.as_spikes(self.values + 1), spikes):
                    return self.values
        kind = type(self.module).__name__
        raise ModelError(
            f"a neuron must give its spikes in a tensor, alone or in a tuple, list or dictionary; {kind} gives "
            f"{type(self.output).__name__}, of which its adapter makes "
            f"{'spikes' if isinstance(spikes, Tensor) else type(spikes).__name__} in another way"
        )
