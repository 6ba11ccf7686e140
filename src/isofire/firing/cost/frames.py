"""Whether the inputs of a network hold a part for each step, wherever their axis of time is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from isofire.adapters import Adapter, from_rest
from isofire.errors import ModelError
from isofire.firing.record import spiking_adapters
from isofire.running import device_of, drawing, evaluating, forward, hooked


def holds_steps(model: nn.Module, inputs: Tensor, axis: int) -> bool:
    """Whether the last part of the inputs along some axis reaches the neurons in later steps, and not in the first.

    Of an image every part does so in each step. Not told from an image are recordings of which each step sees all
    (attention over time).

    Parameters
    ----------
    inputs
        A batch, as the model takes it.
    axis
        Of the images.

    Raises
    ------
    ModelError
        If the model fails on the inputs, or on all inputs that differ from them in their last part alone.
    """
    before = _currents(model, inputs)
    steps = max((layer.steps for layer in before.values()), default=1)
    return steps > 1 and any(
        _later_alone(before, _currents_of_others(model, inputs, place, inputs.shape[place] // steps))
        for place, size in enumerate(inputs.shape)
        if place != axis and size >= steps
    )


def _currents_of_others(model: nn.Module, inputs: Tensor, axis: int, size: int) -> dict[str, _Layer]:
    """What arrives when the last places of an axis hold something else that the model takes."""
    error = None
    # a model that takes only some numbers, one of each row say, may take those of the other end
    for other in (_with_another_end, _with_the_other_end):
        try:
            return _currents(model, other(inputs, axis, size))
        except ModelError as failed:
            error = failed
    raise ModelError(
        f"whether the inputs hold a part for each step is told by changing their last {size} along axis {axis}, on "
        f"which {type(model).__name__} fails, so that its MACs cannot be counted; let its forward take any values of "
        f"the size of its inputs: {error}"
    ) from error


def _with_another_end(inputs: Tensor, axis: int, size: int) -> Tensor:
    """The least and largest of all numbers, which an encoder's first step sees too, in the last places of an axis."""
    chance = torch.Generator().manual_seed(0)
    other = inputs.clone()
    part = other.narrow(axis, inputs.shape[axis] - size, size)
    high = (torch.rand(part.shape, generator=chance) < 0.5).to(inputs.device)
    part.copy_(torch.where(high, inputs.max(), inputs.min()))
    return other


def _with_the_other_end(inputs: Tensor, axis: int, size: int) -> Tensor:
    """The first places of an axis, last one first, in its last places too."""
    other = inputs.clone()
    other.narrow(axis, inputs.shape[axis] - size, size).copy_(inputs.narrow(axis, 0, size).flip(axis))
    return other


def _later_alone(before: dict[str, _Layer], after: dict[str, _Layer]) -> bool:
    pairs = [(layer, after[name]) for name, layer in before.items() if name in after]
    if not all(torch.equal(a.first, b.first) for a, b in pairs):
        return False
    # a network that stops early, or goes elsewhere, does so by what it saw after the first step
    return len(pairs) < len(before) or not all(a.steps == b.steps and torch.equal(a.last, b.last) for a, b in pairs)


@dataclass
class _Layer:
    """What arrives at neurons in their first and last step, and how many there are."""

    first: Tensor
    last: Tensor
    steps: int = 0


def _currents(model: nn.Module, inputs: Tensor) -> dict[str, _Layer]:
    """Of each layer of neurons."""
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
            forward(model, inputs.clone().to(device))
    return found
