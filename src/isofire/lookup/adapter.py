"""Neurons of fast networks through the same door as all others: recorders and comparisons find them."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from isofire.adapters import register
from isofire.adapters.base import MembraneMixin
from isofire.adapters.own import OwnAdapter, left_alone
from isofire.errors import ModelError
from isofire.lookup.neurons import TableNeuron
from isofire.lookup.tensors import plain
from isofire.neurons import MembraneQuantizer
from isofire.neurons.membrane import Placement

_CURE = "quantize the network it is made from"


class FastAdapter(OwnAdapter):
    """`TableNeuron`: as isofire's own, its spikes packed; its membrane is quantized already or not at all."""

    def spikes(self, neuron: nn.Module, output: Any) -> Any:
        # with the counts at hand nobody looks at single spikes, which stay packed
        return plain(output) if self.summed(neuron) is None else output

    def summed(self, neuron: nn.Module) -> Tensor | None:
        assert isinstance(neuron, TableNeuron)
        return neuron.spike_counts if left_alone(neuron) else None

    def host(self, neuron: nn.Module) -> type[MembraneMixin]:
        raise ModelError(f"a fast network is for inference alone; {_CURE}")

    def refusal(self, neuron: nn.Module, placement: Placement) -> str | None:
        return f"it belongs to a fast network; {_CURE}"

    def attach(self, neuron: nn.Module, membrane: MembraneQuantizer) -> None:
        raise ModelError(f"a fast network is for inference alone; {_CURE}")


register(TableNeuron, FastAdapter())  # type: ignore[type-abstract]
