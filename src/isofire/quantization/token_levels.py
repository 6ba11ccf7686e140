"""Membranes whose levels are one a channel, in layers of neurons whose channels lie elsewhere than a membrane's do."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from isofire.adapters import Adapter, find_neurons, from_rest, heard
from isofire.quantization.plan import WEIGHTED
from isofire.running import evaluating, forward, hooked

_LOG = logging.getLogger(__name__)


def tell_tokens(model: nn.Module, batches: Iterable[Tensor]) -> None:
    """Log a warning for calibrated neurons of which a linear layer's outputs lie on the last of several axes: levels of
    their own have what lies on axis 1 of a step [N, C, ...], tokens mostly.

    Parameters
    ----------
    batches
        To run the network on, where a membrane has levels for each channel.
    """
    neurons = {name: item for name, item in find_neurons(model).items() if _of_channels(*item)}
    if not neurons:
        return
    last: list[tuple[str, nn.Module]] = []
    found: dict[str, str] = {}

    def made(name: str, layer: nn.Module, _inputs: Any, _output: Any) -> None:
        last[:] = [(name, layer)]

    def fired(name: str, spikes: Tensor) -> None:
        for layer, module in last:
            if isinstance(module, nn.Linear) and spikes.ndim > 3 and spikes.shape[-1] == module.out_features:
                sizes = ", ".join(map(str, spikes.shape[2:]))
                found[name] = f"{name!r} (one for each of {spikes.shape[2]} of a step [N, {sizes}], behind {layer!r})"

    layers = ((name, module) for name, module in model.named_modules() if isinstance(module, WEIGHTED))
    with (
        hooked(module.register_forward_hook(partial(made, name)) for name, module in layers),
        heard(neurons, fired), torch.no_grad(), evaluating(model), from_rest(model),
    ):  # fmt: skip
        for inputs in batches:
            forward(model, inputs)
    if found:
        _LOG.warning(
            "calibration: levels of each channel are those of axis 1 of a step; the linear layers before these neurons "
            "have their outputs on the last axis, so that each token has its own, and other numbers of tokens do not "
            "fit: %s; granularity = 'tensor' has one set for all",
            ", ".join(found.values()),
        )


def _of_channels(neuron: nn.Module, adapter: Adapter) -> bool:
    membrane = adapter.membrane(neuron)
    return (
        membrane is not None
        and membrane.quantizer.granularity == "channel"
        and membrane.quantizer.levels().shape[0] > 1
    )
