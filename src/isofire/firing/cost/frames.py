"""Whether the inputs of a network hold a part for each step, wherever their axis of time is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from isofire.adapters import Adapter, from_rest
from isofire.firing.record import spiking_adapters
from isofire.running import device_of, drawing, evaluating, hooked


def holds_steps(model: nn.Module, inputs: Tensor, axis: int) -> bool:
    """Whether the last part of the inputs along some axis reaches the neurons in the last step, and not in the first.

    Of an image every part does so in each step. Not told from an image are recordings of which each step sees all
    (attention over time).

    Parameters
    ----------
    inputs
        A batch, as the model takes it.
    axis
        Of the images.
    """
    before = _currents(model, inputs)
    steps = max((layer.steps for layer in before), default=1)
    return steps > 1 and any(
        _last_alone(before, _currents(model, _with_another_end(inputs, place, inputs.shape[place] // steps)))
        for place, size in enumerate(inputs.shape)
        if place != axis and size >= steps
    )


def _with_another_end(inputs: Tensor, axis: int, size: int) -> Tensor:
    """The least and largest of all numbers, which an encoder's first step sees too, in the last places of an axis."""
    chance = torch.Generator().manual_seed(0)
    other = inputs.clone()
    part = other.narrow(axis, inputs.shape[axis] - size, size)
    high = (torch.rand(part.shape, generator=chance) < 0.5).to(inputs.device)
    part.copy_(torch.where(high, inputs.max(), inputs.min()))
    return other


def _last_alone(before: list[_Layer], after: list[_Layer]) -> bool:
    if not after or len(before) != len(after):
        return False
    pairs = list(zip(before, after, strict=True))
    return all(torch.equal(a.first, b.first) for a, b in pairs) and not all(
        torch.equal(a.last, b.last) for a, b in pairs
    )


@dataclass
class _Layer:
    """What arrives at neurons in their first and last step, and how many there are."""

    first: Tensor
    last: Tensor
    steps: int = 0


def _currents(model: nn.Module, inputs: Tensor) -> list[_Layer]:
    """Of each layer of neurons; none if the model fails on the inputs."""
    found: dict[str, _Layer] = {}

    def note(name: str, adapter: Adapter) -> Any:
        def hook(neuron: nn.Module, given: Any, output: Any) -> None:
            # the neuron's layout tells the steps of what it is given as of what it gives
            seen = adapter.spikes(neuron, given[0] if given else output)
            if isinstance(seen, Tensor) and seen.ndim:
                layer = found.setdefault(name, _Layer(seen[0].clone(), seen[-1]))
                layer.last, layer.steps = seen[-1].clone(), layer.steps + len(seen)

        return hook

    device = device_of(model, inputs.device)
    with evaluating(model), from_rest(model), torch.no_grad(), drawing(0, device):
        neurons = spiking_adapters(model).items()
        with hooked(neuron.register_forward_hook(note(name, adapter)) for name, (neuron, adapter) in neurons):
            try:
                model(inputs.clone().to(device))
            except Exception:
                # whatever a stranger's network raises says the same: not these inputs
                return []
    return list(found.values())
