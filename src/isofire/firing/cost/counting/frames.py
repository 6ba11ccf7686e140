"""Whether the inputs of a network hold a part for each step, wherever their axis of time is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import zip_longest
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from isofire.errors import ModelError
from isofire.firing.cost.counting.currents import Currents, Spikes, currents
from isofire.firing.cost.events.events import storage_of
from isofire.firing.cost.events.operations import CONVOLUTIONS, PRODUCTS
from isofire.firing.cost.following.stored import named_tensors
from isofire.running import OfOnePass, hooked

_LAYERS = 12
"""Of which a network is asked whether their calls are steps."""
_DRAWS = 8
"""Changes of a part that must agree where thresholds of the network's own stand before its neurons."""


def holds_steps(model: nn.Module, inputs: Tensor, axis: int, *, strangers: bool = False) -> bool:
    """Whether the last part of the inputs along some axis reaches the neurons later than the first of their parts does.

    Of an image every part does so in the same steps, be it from the first step on or after a delay. Not told from an
    image are recordings of which each step sees all (attention over time).

    Parameters
    ----------
    inputs
        A batch, as the model takes it.
    axis
        Of the images.
    strangers
        Whether other modules fire than the neurons that isofire knows. These let less of a part through than of the
        whole, and later, so that several parts must agree and no layer may see any of them at once.

    Raises
    ------
    ModelError
        If the model fails on the inputs, or on all inputs that differ from them in their last part alone; or, where
        that comes late, in their first.
    """
    spikes = Spikes()
    before = currents(model, inputs, spikes)
    steps = max(map(len, before.values()), default=1)
    if steps == 1:
        return False
    for place, size in enumerate(inputs.shape):
        if place != axis and size >= steps:
            last = size // steps
            parts = [
                onsets(before, _currents_of_others(model, inputs, spikes, place, last, draw=draw))
                for draw in range(_DRAWS if strangers else 1)
            ]
            # what reaches no neuron says nothing
            parts = [part for part in parts if part]
            if not parts or not any(parts[0].values()) or any(part != parts[0] for part in parts):
                continue
            if is_later(parts[0], _onsets_of_all(model, inputs, spikes, before, place, last), everywhere=strangers):
                return True
    return False


def _onsets_of_all(
    model: nn.Module, inputs: Tensor, spikes: Spikes, before: Currents, axis: int, size: int
) -> dict[str, int]:
    """The steps that any part of the inputs reaches; of the first part where the model takes no other whole."""
    try:
        found = _currents_of_others(model, inputs, spikes, axis, inputs.shape[axis])
    except ModelError:
        found = _currents_of_others(model, inputs, spikes, axis, size, first=True)
    return onsets(before, found)


class CallsAsked:
    """Asks a network whether calls of a layer are steps.

    Parameters
    ----------
    inputs
        A few images, as the model takes them.
    strangers
        As of `holds_steps`.
    most
        Layers of which it is asked.

    Attributes
    ----------
    held
        Those of whose calls some are of several steps.
    """

    def __init__(self, model: nn.Module, inputs: Tensor, *, strangers: bool = False, most: int = _LAYERS) -> None:
        self._model, self._inputs, self._strangers, self._left = model, inputs, strangers, most
        self.held = set[str]()
        self._spikes = Spikes()
        self._before: Currents | None = None

    def are_steps(self, site: str, first: int, last: int, steps: int) -> bool | None:
        """Whether calls are of one step each, and not of parts of an image that every step sees.

        Told by changing what the first and the last of them give; None where nothing changes by it, or where they are
        fewer than the steps from the first one's on, so that some are of several.

        Parameters
        ----------
        site
            Name of the module that holds the layer's weights, or of the tensor.
        first, last
            Their numbers, from 1 on.
        steps
            T.
        """
        self._left -= 1
        if not (later := self._first_steps(site, last)):
            return None
        begins = self._first_steps(site, first)
        if not is_later(later, begins, everywhere=self._strangers):
            return False
        if last - first + 1 >= steps - min(begins.values(), default=0):
            return True
        self.held.add(site)
        return None

    @property
    def spent(self) -> bool:
        """Whether as many layers as may be have been asked of."""
        return self._left <= 0

    def _first_steps(self, site: str, call: int) -> dict[str, int]:
        if self._before is None:
            self._before = self._currents()
        modules, parameters = dict(self._model.named_modules()), dict(named_tensors(self._model))
        weights = [parameters[site]] if site in parameters else [*modules[site].parameters()] if site in modules else []
        for change in (_Calls(modules.get(site), call).changing(), _Products(weights, call)):
            with change:
                found = onsets(self._before, self._currents())
            if found:
                return found
        return {}

    def _currents(self) -> Currents:
        return currents(self._model, self._inputs, self._spikes)


class _Calls(OfOnePass):
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


def onsets(before: Currents, after: Currents) -> dict[str, int]:
    """Layer of neurons -> the first step in which it is given something else, or nothing; without those in no step."""
    return first_of(changed(before, after))


def first_of(steps: Mapping[str, Sequence[int]]) -> dict[str, int]:
    """Layer of neurons -> the first of some steps."""
    return {name: min(its) for name, its in steps.items()}


def changed(before: Currents, after: Currents) -> dict[str, list[int]]:
    """Layer of neurons -> the steps in which it is given something else; without those in no step, or not called."""
    found = {
        name: [step for step, (a, b) in enumerate(zip_longest(given, after[name])) if a != b]
        for name, given in before.items()
        if name in after
    }
    return {name: steps for name, steps in found.items() if steps}


def is_later(part: Mapping[str, int], whole: Mapping[str, int], *, everywhere: bool) -> bool:
    """Whether a change of a part reaches neurons later than a change of the whole, or of its first part, does.

    Asked of each layer that the whole reaches first; or it has to be so `everywhere`, where thresholds of the network's
    own let less of a part through.
    """
    first = min(whole.values(), default=0)
    if everywhere:
        return min(part.values(), default=0) > first
    reached = [name for name, step in whole.items() if step == first]
    if not part.keys() & set(reached):
        return min(part.values(), default=0) > first
    return any(part.get(name, first) > first for name in reached)


def _currents_of_others(
    model: nn.Module, inputs: Tensor, spikes: Spikes, axis: int, size: int, *, first: bool = False, draw: int = 0
) -> Currents:
    """What arrives when the last places of an axis, or the first, hold something else that the model takes."""
    error = None
    # a model that takes only some numbers, one of each row say, may take those of the other end
    for other in (partial(_with_another_end, draw=draw), _with_the_other_end):
        try:
            changed = other(inputs.flip(axis), axis, size).flip(axis) if first else other(inputs, axis, size)
            return currents(model, changed, spikes)
        except ModelError as failed:
            error = failed
    part = f"{'first' if first else 'last'} {size} along axis {axis}"
    raise ModelError(
        f"whether the inputs hold a part for each step is told by changing their {part}, on which "
        f"{type(model).__name__} fails, so that its MACs cannot be counted; let its forward take any values of the "
        f"size of its inputs: {error}"
    ) from error


def _with_another_end(inputs: Tensor, axis: int, size: int, *, draw: int) -> Tensor:
    """The least and largest of all numbers, which an encoder's first step sees too, in the last places of an axis."""
    chance = torch.Generator().manual_seed(draw)
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
