"""Layers that keep a state from step to step and do not spike: leaky integrators, filters, recurrent layers."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from isofire.adapters.framework import loaded_frameworks
from isofire.adapters.registry import find_neurons
from isofire.running import tensors_in


def find_keepers(model: nn.Module) -> dict[str, nn.Module]:
    """By name, outside of neurons: torch's recurrent layers and those that a library's `Framework` knows."""
    inside = {module for neuron, _ in find_neurons(model).values() for module in neuron.modules()}
    return {
        name: module
        for name, module in model.named_modules()
        if module not in inside and states_after(module, None) is not None
    }


def states_after(module: nn.Module, output: Any) -> tuple[Tensor, ...] | None:
    """What such a layer keeps after a call that gave this output, for all images together; None for any other."""
    if isinstance(module, nn.RNNBase | nn.RNNCellBase):
        # (outputs, states), but a cell gives its states alone
        held = output[1] if isinstance(module, nn.RNNBase) and output is not None else output
        return tuple(tensors_in(held))
    found = (framework.states_after(module, output) for framework in loaded_frameworks())
    return next((states for states in found if states is not None), None)
