"""SpikingJelly 0.0.0.0.14, the release most public code was written for: charge, fire and reset are methods."""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch import Tensor, nn

from isofire.adapters.base import Adapter, MembraneMixin
from isofire.adapters.framework import register_framework
from isofire.adapters.libraries.spikingjelly import (
    NEURONS,
    SpikingJelly,
    SpikingJellyAdapter,
    SpikingJellyFramework,
    fire_and_reset,
    library_kind,
)


class SpikingJelly0(SpikingJellyFramework):
    """Finds the neurons of SpikingJelly 0.0.0.0.14, in which `neuron` is a single file."""

    module = NEURONS

    def __init__(self) -> None:
        self._adapter = StepNodeAdapter()

    def is_loaded(self) -> bool:
        return super().is_loaded() and SpikingJelly.module not in sys.modules

    def adapter_of(self, module: nn.Module) -> Adapter | None:
        return self._adapter if isinstance(module, self.loaded.BaseNode) else None


class StepNodeAdapter(SpikingJellyAdapter):
    """Children of `BaseNode`."""

    quantizable = ("BaseNode", "IFNode", "LIFNode", "ParametricLIFNode", "QIFNode", "EIFNode", "KLIFNode")

    def host(self, neuron: Any) -> type[MembraneMixin]:
        return StepHost


class StepHost(MembraneMixin):
    """The steps of training, in eval mode too, where IF and LIF run scripted loops past every method of theirs."""

    def single_step_forward(self: Any, x: Tensor) -> Tensor:
        self.v_float_to_tensor(x)
        _charge(self, x)
        return fire_and_reset(self)

    def multi_step_forward(self: Any, x_seq: Tensor) -> Tensor:
        spikes, states = [], []
        for x in x_seq:
            spikes.append(self.single_step_forward(x))
            if self.store_v_seq:
                states.append(self.v)
        if self.store_v_seq:
            self.v_seq = torch.stack(states)
        return torch.stack(spikes)


def _charge(neuron: Any, x: Tensor) -> None:
    # the one place where the library's loops of eval mode round otherwise than its methods
    scripted = not neuron.training and library_kind(neuron) == "LIFNode"
    if scripted and not neuron.decay_input and neuron.v_reset == 0.0:
        neuron.v = neuron.v - (neuron.v - neuron.v_reset) / neuron.tau + x
    else:
        neuron.neuronal_charge(x)


register_framework("spikingjelly0", SpikingJelly0())
