"""Convolution and linear layers whose weights change with the step, for TaWQ."""

from __future__ import annotations

import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from isofire.adapters import find_neurons
from isofire.convolution import overruns, plain
from isofire.errors import ModelError, SpecError
from isofire.neurons import Neuron, StepLayer
from isofire.quantization.own_forward import is_plain

_SETTINGS = {
    "in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups", "padding_mode",
    "in_features", "out_features",
}  # fmt: skip
KINDS = (nn.Conv1d, nn.Conv2d, nn.Linear)


class TemporalLayer(StepLayer):
    """A layer applied to [T, N, ...] with weights [T, *shape], one set a step."""

    def __init__(self, layer: nn.Conv1d | nn.Conv2d | nn.Linear) -> None:
        super().__init__()
        self.weight = layer.weight
        self.bias = layer.bias
        # outside the module tree: it lends its settings, not its parameters
        self._template = (copy.copy(layer),)
        self._template[0]._parameters = {}

    @property
    def template(self) -> nn.Conv1d | nn.Conv2d | nn.Linear:
        """The layer whose settings these weights use; it has no weights of its own."""
        return self._template[0]

    def forward(self, x: Tensor) -> Tensor:
        """[T, N, ...] -> [T, N, ...], step t with weights t."""
        weights = self.weight
        axes = 3 if isinstance(self.template, nn.Linear) else weights.ndim
        # as many images as steps must not be taken for the steps
        if x.shape[0] != weights.shape[0] or x.ndim < axes:
            raise ModelError(
                f"these weights were made for T={weights.shape[0]} steps [T, N, ...], got input {tuple(x.shape)}; "
                "set `steps` of the tawq setting to the model's T; a layer that sees the image once, before "
                "the steps, must stay float"
            )
        return torch.cat([self._apply_one(step, weight) for step, weight in zip(x, weights, strict=True)]).unflatten(
            0, x.shape[:2]
        )

    def __getattr__(self, name: str) -> Any:
        """What a network may ask of the layer that this one replaces, such as its `in_channels`."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name in _SETTINGS and "_template" in self.__dict__:
                return getattr(self.template, name)
            raise

    def _apply_one(self, x: Tensor, weight: Tensor) -> Tensor:
        layer = self._template[0]
        if isinstance(layer, nn.Linear):
            return F.linear(x, weight, self.bias)
        if x.device.type == "cpu" and overruns(weight, layer.stride):
            x, weight = plain(x), plain(weight)
        return layer._conv_forward(x, weight, self.bias)

    def extra_repr(self) -> str:
        return self._template[0].extra_repr()


def make_temporal_(model: nn.Module, name: str) -> TemporalLayer:
    """Replace the layer `name` of `model` by its time-varying form, sharing the parameters."""
    layer = model.get_submodule(name)
    assert isinstance(layer, KINDS)
    temporal = TemporalLayer(layer)
    model.set_submodule(name, temporal)
    return temporal


def check_temporal(model: nn.Module, name: str) -> None:
    """Raise SpecError if the layer `name` is of a kind that has no time-varying form, or its model another's."""
    for place, (neuron, _) in find_neurons(model).items():
        # one that sees single steps or [N, T, ...] would be given the weights of another step without a word
        if not isinstance(neuron, Neuron):
            raise SpecError(
                f"tawq needs a model of isofire's own neurons, where layers see [T, N, ...]; {place!r} is "
                f"{type(neuron).__module__.partition('.')[0]}'s {type(neuron).__name__}; take another method"
            )
    layer = model.get_submodule(name)
    if not isinstance(layer, KINDS) or not is_plain(layer):
        raise SpecError(
            f"weights that change with the step work on torch's own Conv1d, Conv2d and Linear, {name!r} is "
            f"{type(layer).__name__}; leave it float"
        )
