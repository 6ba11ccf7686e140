"""Integer neurons through the same door as all others: recorders and comparisons find them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from isofire.adapters import Adapter, Layout, register
from isofire.adapters.base import MembraneMixin
from isofire.errors import ModelError
from isofire.integer.population import Population
from isofire.neurons import MembraneQuantizer
from isofire.neurons.membrane import Placement


class IntegerAdapter(Adapter):
    """`Population`: [T, N, ...], from rest in every pass; its membrane is quantized already."""

    is_integer = True

    def layout(self, neuron: nn.Module) -> Layout:
        return Layout.TIME_FIRST

    def threshold(self, neuron: nn.Module) -> Tensor:
        assert isinstance(neuron, Population)
        scale = torch.ones(()) if neuron.scale is None else neuron.scale
        return neuron.threshold * scale

    def host(self, neuron: nn.Module) -> type[MembraneMixin]:
        raise ModelError("the membranes of an integer network are whole numbers; quantize the network it is made from")

    def refusal(self, neuron: nn.Module, placement: Placement) -> str | None:
        return "its states are whole numbers already; quantize the network it is made from"

    def membrane(self, neuron: nn.Module) -> MembraneQuantizer | None:
        return None

    def drive(self, neuron: nn.Module, currents: Tensor) -> Tensor:
        raise ModelError("integer neurons are run by their network (IntegerNetwork.run)")


register(Population, IntegerAdapter())
