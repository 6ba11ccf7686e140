"""What an adapter's spikes say of the numbers that a neuron itself gives."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from isofire.adapters.base import Adapter

_NEAR = 1e-6


def in_order(module: nn.Module, adapter: Adapter, values: Tensor) -> Tensor:
    """Numbers laid out as a neuron's output, as they are in the order of its spikes, [T, N, ...]."""
    # an adapter may divide by the height of each neuron's spikes
    return adapter.spikes(module, values) / adapter.spikes(module, torch.ones_like(values))


def heights_of(module: nn.Module, adapter: Adapter, values: Tensor) -> Tensor:
    """What a spike is in a neuron's output: one number, float64, 1 but for graded spikes; of the output's shape where
    neurons of a layer have heights of their own."""
    heights = 1 / adapter.spikes(module, torch.ones_like(values)).detach().double()
    # a third in float32 is no third
    near = (heights - heights.round()).abs() <= _NEAR * heights.abs()
    heights = torch.where(near, heights.round(), heights)
    if bool((heights == heights.flatten()[0]).all()):
        return heights.flatten()[0]
    found = torch.empty(values.numel(), dtype=torch.float64, device=values.device)
    found[_places(module, adapter, values).flatten()] = heights.flatten()
    return found.view(values.shape)


def step_of_each(module: nn.Module, adapter: Adapter, values: Tensor) -> Tensor:
    """Of each number that a neuron gives in one call, which of the call's steps it is of; int64 of the same shape."""
    found = torch.zeros(values.numel(), dtype=torch.int64, device=values.device)
    for step, its in enumerate(_places(module, adapter, values)):
        found[its.flatten()] = step
    return found.view(values.shape)


def _places(module: nn.Module, adapter: Adapter, values: Tensor) -> Tensor:
    """In the order of spikes, where each number lies in the output; an adapter may give a copy."""
    places = torch.arange(values.numel(), dtype=torch.float64, device=values.device).view(values.shape)
    return in_order(module, adapter, places).round().long()
