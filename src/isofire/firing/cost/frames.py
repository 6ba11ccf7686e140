"""Whether the inputs of a network hold a part for each step, wherever their axis of time is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from isofire.adapters import Adapter, from_rest
from isofire.errors import ModelError
from isofire.firing.cost.contacts import CONVOLUTIONS, PRODUCTS
from isofire.firing.cost.events import storage_of
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


def calls_are_steps(model: nn.Module, inputs: Tensor, site: str, calls: int) -> bool | None:
    """Whether the last of so many calls of a layer is of the last step, and not of a part that every step sees.

    Told by changing what that call gives; None where nothing changes by it.

    Parameters
    ----------
    site
        Name of the module that holds the layer's weights, or of the parameter.
    """
    before = _currents(model, inputs)
    modules, parameters = dict(model.named_modules()), dict(model.named_parameters())
    weights = [parameters[site]] if site in parameters else [*modules[site].parameters()] if site in modules else []
    for change in (_Calls(modules.get(site), calls).changing(), _Products(weights, calls)):
        with change:
            after = _currents(model, inputs)
        if not _alike(before, after):
            return _later_alone(before, after)
    return None


class _Calls:
    """Adds to what a module gives in one of its calls."""

    def __init__(self, module: nn.Module | None, call: int) -> None:
        self._module, self._left = module, call

    @contextmanager
    def changing(self) -> Iterator[None]:
        with hooked([] if self._module is None else [self._module.register_forward_hook(self._change)]):
            yield

    def _change(self, _module: nn.Module, _given: Any, output: Any) -> Any:
        self._left -= 1
        return output + 1 if isinstance(output, Tensor) and self._left == 0 else output


class _Products(TorchDispatchMode):
    """Adds to what one of the products with some weights gives."""

    def __init__(self, weights: Sequence[Tensor], call: int) -> None:
        super().__init__()
        self._places, self._left = {storage_of(weight)._cdata for weight in weights}, call

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        name = func._schema.name.split("::")[-1]
        if name in CONVOLUTIONS or name in PRODUCTS or name == "linear":
            held = {storage_of(x)._cdata for x in args if isinstance(x, Tensor)}
            self._left -= bool(held & self._places)
            if self._left == 0 and held & self._places:
                return output + 1
        return output


def _alike(before: dict[str, _Layer], after: dict[str, _Layer]) -> bool:
    return before.keys() == after.keys() and all(
        a.steps == b.steps and torch.equal(a.first, b.first) and torch.equal(a.last, b.last)
        for a, b in ((layer, after[name]) for name, layer in before.items())
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
