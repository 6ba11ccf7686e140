"""A prepared network whose quantizers are switched on one after the other."""

from __future__ import annotations

from types import TracebackType
from typing import Any

from torch import Tensor, nn
from torch.nn.utils import parametrize

from isofire.adapters import find_neurons
from isofire.neurons import MembraneQuantizer
from isofire.quantizers import Quantizer


class Bypass:
    """All weight and membrane quantizers of a prepared network, off; `on` switches one on for good.

    As a context manager it puts back what is still off at its end.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.weights: dict[str, Quantizer] = {}
        self.membranes: dict[str, MembraneQuantizer] = {}

    def __enter__(self) -> Bypass:
        for name, module in self.model.named_modules():
            if parametrize.is_parametrized(module, "weight"):
                held: Any = module.parametrizations["weight"]  # type: ignore[index]
                for place, quantizer in enumerate(held):
                    if isinstance(quantizer, Quantizer):
                        self.weights[name] = quantizer
                        held[place] = _AsItIs(quantizer)
        for name, (neuron, adapter) in find_neurons(self.model).items():
            if (membrane := adapter.membrane(neuron)) is not None:
                self.membranes[name] = membrane
                adapter.detach(neuron)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        for name in [*self.weights]:
            self.on_weights(name)
        for name in [*self.membranes]:
            self.on_membrane(name)

    def on_weights(self, name: str) -> None:
        """Quantize the weights of this layer from here on."""
        held: Any = self.model.get_submodule(name).parametrizations["weight"]  # type: ignore[index,union-attr]
        for place, module in enumerate(held):
            if isinstance(module, _AsItIs):
                held[place] = self.weights.pop(name)

    def on_membrane(self, name: str) -> None:
        """Quantize the membranes of this layer of neurons from here on."""
        neuron, adapter = find_neurons(self.model)[name]
        adapter.attach(neuron, self.membranes.pop(name))


class _AsItIs(nn.Module):
    """In a quantizer's place: the full-precision weight, with the time axis that the quantizer would give it."""

    def __init__(self, quantizer: Quantizer) -> None:
        super().__init__()
        self.steps: int | None = getattr(quantizer, "steps", None)

    def forward(self, weight: Tensor) -> Tensor:
        return weight if self.steps is None else weight.expand(self.steps, *weight.shape)
