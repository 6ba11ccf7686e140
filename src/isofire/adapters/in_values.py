"""What an adapter's view of spikes says of the numbers that a neuron itself gives."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from isofire.adapters.base import Adapter


def height_of(module: nn.Module, adapter: Adapter, values: Tensor) -> float:
    """What a spike is in the neuron's output: 1, or the height of its graded spikes."""
    counts = adapter.spikes(module, torch.ones_like(values))
    height = 1 / float(counts.flatten()[0])
    # a third in float32 is no third
    return float(round(height)) if math.isclose(height, round(height), rel_tol=1e-6) else height


def step_of_each(module: nn.Module, adapter: Adapter, values: Tensor) -> Tensor:
    """Of each number that a neuron gives in one call, which of the call's steps it is of; int64 of the same shape."""
    places = torch.arange(values.numel(), dtype=torch.float64, device=values.device).view(values.shape)
    height = 1 / float(adapter.spikes(module, torch.ones_like(places)).flatten()[0])
    found = torch.zeros(values.numel(), dtype=torch.int64, device=values.device)
    # an adapter may give a copy, whose places tell where its numbers came from
    for step, its in enumerate((adapter.spikes(module, places) * height).round().long()):
        found[its.flatten()] = step
    return found.view(values.shape)
