"""Whether the inputs of a network hold a part for each step, wherever their axis of time is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from itertools import zip_longest
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from isofire.adapters import Adapter, from_rest
from isofire.errors import ModelError
from isofire.firing.cost.events.events import storage_of
from isofire.firing.cost.events.operations import CONVOLUTIONS, PRODUCTS
from isofire.firing.cost.following.stored import named_tensors
from isofire.firing.record import spiking_adapters
from isofire.running import device_of, drawing, evaluating, forward, hooked


def holds_steps(model: nn.Module, inputs: Tensor, axis: int) -> bool:
    """Whether the last part of the inputs along some axis reaches the neurons later than the first of their parts does.

    Of an image every part does so in the same steps, be it from the first step on or after a delay. Not told from an
    image are recordings of which each step sees all (attention over time).

    Parameters
    ----------
    inputs
        A batch, as the model takes it.
    axis
        Of the images.

    Raises
    ------
    ModelError
        If the model fails on the inputs, or on all inputs that differ from them in their last part alone; or, where
        that comes late, in their first.
    """
    before = currents(model, inputs)
    steps = max(map(len, before.values()), default=1)
    if steps == 1:
        return False
    for place, size in enumerate(inputs.shape):
        if place != axis and size >= steps:
            last = size // steps
            part = onset(before, _currents_of_others(model, inputs, place, last))
            if part and part > _onset_of_all(model, inputs, before, place, last):
                return True
    return False


def _onset_of_all(model: nn.Module, inputs: Tensor, before: Currents, axis: int, size: int) -> int:
    """The step that any part of the inputs reaches; of the first part where the model takes no other whole."""
    try:
        found = _currents_of_others(model, inputs, axis, inputs.shape[axis])
    except ModelError:
        found = _currents_of_others(model, inputs, axis, size, first=True)
    return onset(before, found) or 0


def calls_are_steps(model: nn.Module, inputs: Tensor, site: str, calls: int) -> bool | None:
    """Whether the last of so many calls of a layer is of a later step than the first, and not of a part of an image
    that every step sees.

    Told by changing what these calls give; None where nothing changes by it.

    Parameters
    ----------
    site
        Name of the module that holds the layer's weights, or of the tensor.
    """
    before = currents(model, inputs)
    modules, parameters = dict(model.named_modules()), dict(named_tensors(model))
    weights = [parameters[site]] if site in parameters else [*modules[site].parameters()] if site in modules else []

    def first_step(call: int) -> int | None:
        for change in (_Calls(modules.get(site), call).changing(), _Products(weights, call)):
            with change:
                found = onset(before, currents(model, inputs))
            if found is not None:
                return found
        return None

    last = first_step(calls)
    return None if last is None else last > (first_step(1) or 0)


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


def onset(before: Currents, after: Currents) -> int | None:
    """The first step in which neurons are given something else, or nothing; None where there is none."""
    found = [
        next((step for step, (a, b) in enumerate(zip_longest(given, after[name])) if a != b), None)
        for name, given in before.items()
        if name in after
    ]
    # a network that goes elsewhere does so by what it saw
    elsewhere = [] if len(found) == len(before) else [max(map(len, before.values()))]
    return min([*elsewhere, *(step for step in found if step is not None)], default=None)


def _currents_of_others(model: nn.Module, inputs: Tensor, axis: int, size: int, *, first: bool = False) -> Currents:
    """What arrives when the last places of an axis, or the first, hold something else that the model takes."""
    error = None
    # a model that takes only some numbers, one of each row say, may take those of the other end
    for other in (_with_another_end, _with_the_other_end):
        try:
            changed = other(inputs.flip(axis), axis, size).flip(axis) if first else other(inputs, axis, size)
            return currents(model, changed)
        except ModelError as failed:
            error = failed
    part = f"{'first' if first else 'last'} {size} along axis {axis}"
    raise ModelError(
        f"whether the inputs hold a part for each step is told by changing their {part}, on which "
        f"{type(model).__name__} fails, so that its MACs cannot be counted; let its forward take any values of the "
        f"size of its inputs: {error}"
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


Currents = dict[str, list[bytes]]
"""Layer of neurons -> what arrives at it in each step."""


def currents(model: nn.Module, inputs: Tensor, run: Callable[[nn.Module, Tensor], Any] = forward) -> Currents:
    """What arrives at each layer of neurons, the network run from rest."""
    found: Currents = {}

    def note(name: str, adapter: Adapter) -> Any:
        def hook(neuron: nn.Module, given: Any, output: Any) -> None:
            # the neuron's layout tells the steps of what it is given as of what it gives
            seen = adapter.spikes(neuron, given[0] if given else output)
            if isinstance(seen, Tensor) and seen.ndim:
                found.setdefault(name, []).extend(map(_digest, seen))

        return hook

    device = device_of(model, inputs.device)
    with evaluating(model), from_rest(model), torch.no_grad(), drawing(0, device):
        neurons = spiking_adapters(model).items()
        with hooked(neuron.register_forward_hook(note(name, adapter)) for name, (neuron, adapter) in neurons):
            run(model, inputs.clone().to(device))
    return found


def _digest(x: Tensor) -> bytes:
    # -0 is 0
    values = (x.detach() + 0).contiguous().flatten().view(torch.uint8)
    return sha256(values.cpu().numpy().tobytes()).digest()
