"""One layer of a fast network, and the same in plain torch: codes in the convolution, the step in the epilogue."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from isofire.lookup.build import mix
from isofire.lookup.counts import DenseCounts
from isofire.lookup.layers import KINDS, LayerCodes, TableLayer
from isofire.lookup.neurons import TableNeuron
from isofire.lookup.tensors import Spikes
from isofire.neurons import Neuron, apply_per_step, reference


def fast_layer(layer: nn.Module) -> TableLayer:
    """The layer, looked up from now on."""
    mix(layer, KINDS[type(layer)])
    assert isinstance(layer, TableLayer)
    return layer


def fast_neuron(neuron: Neuron, isa: str | None) -> Neuron:
    """The neurons, behind tables from now on."""
    mix(neuron, TableNeuron)
    neuron.__dict__["isa"] = isa
    return neuron


def by_tables(layer: nn.Module, norm: Any, neuron: Neuron, counts: Tensor, most: int) -> Tensor:
    """Spikes of a layer that looks up, for counts [T, N, C, H, W] up to `most`."""
    spikes = Spikes(DenseCounts(counts, most), "features" if isinstance(layer, nn.Linear) else "maps")
    return neuron(apply_per_step(layer, spikes), norm=norm)


def by_definition(layer: Any, norm: Any, neuron: Neuron, counts: Tensor) -> Tensor:
    """What the spikes are: float64 sums of codes, one rounding each to scale, shift, product and sum in float32."""
    found = layer.found()
    assert isinstance(found, LayerCodes)
    codes, step = found.codes, found.step
    assert torch.equal((codes * step.view(-1, *(1,) * (codes.ndim - 1))).float(), layer.weight.detach())
    x = counts.double().flatten(0, 1)
    if isinstance(layer, nn.Linear):
        sums = F.linear(x.flatten(1), codes.double())
    else:
        sums = F.conv2d(x, codes.double(), None, layer.stride, layer.padding, layer.dilation, layer.groups)
    gain, shift = step.clone(), torch.zeros_like(step) if layer.bias is None else layer.bias.detach().double()
    if norm is not None:
        slope = norm.weight.detach().double() * torch.rsqrt(norm.running_var.double() + norm.eps)
        gain, shift = gain * slope, (shift - norm.running_mean.double()) * slope + norm.bias.detach().double()
    scale, offset = (part.float().view(-1, *(1,) * (sums.ndim - 2)) for part in (gain, shift))
    currents = (sums.round().float() * scale + offset).unflatten(0, counts.shape[:2])
    return reference.run(neuron.dynamics, currents, neuron.tensors(), neuron.membrane)
