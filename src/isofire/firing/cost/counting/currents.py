"""What arrives at the neurons of a network in each step."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import Any

import torch
from torch import Tensor, nn

from isofire.adapters import Adapter, Fired, from_rest
from isofire.firing.cost.counting.makers import Makers
from isofire.firing.record import spiking_adapters
from isofire.running import device_of, drawing, evaluating, forward, hooked, tensors_in

_Made = tuple[str, str]

_INPUTS, _SPIKES, _STATE = "inputs", "spikes", "state"
"""What tensors are made of: of the network's inputs; of what a neuron gives, its spikes and all else."""

Currents = dict[str, list[bytes]]
"""Layer of neurons -> what arrives at it in each step."""


class Spikes:
    """What neurons gave in a first run, and give again in all that follow.

    So what arrives at them changes by what is changed alone, and not by what other neurons made of it: those that see
    all steps at once answer in the first to what is given them in the last.
    """

    def __init__(self) -> None:
        self._given: dict[str, list[Tensor]] = {}
        self._runs = 0
        self._calls = Counter[str]()

    def begin(self) -> None:
        """A run of the network."""
        self._runs += 1
        self._calls.clear()

    def pass_on(self, name: str, fired: Fired) -> Any:
        """What goes on of a neuron's output, which is kept or replaced."""
        values = fired.values
        given, call = self._given.setdefault(name, []), self._calls[name]
        self._calls[name] += 1
        if self._runs == 1:
            given.append(values.detach().clone())
        elif call < len(given) and given[call].shape == values.shape:
            return fired.with_values(given[call].clone())
        return fired.output


def currents(
    model: nn.Module, inputs: Tensor, spikes: Spikes, run: Callable[[nn.Module, Tensor], Any] = forward
) -> Currents:
    """What arrives at each layer of neurons, the network run from rest."""
    found: Currents = {}
    makers = Makers[_Made]()

    def note(name: str, adapter: Adapter) -> Any:
        def hook(neuron: nn.Module, args: Any, options: Any, output: Any) -> Any:
            fired = Fired(neuron, adapter, output)
            # the neuron's layout tells the steps of what it is given as of what it gives
            given = _driving(tensors_in(args, options), name, makers)
            seen = fired.spikes if given is None else fired.as_spikes(given)
            found.setdefault(name, []).extend(map(_digest, seen))
            passed = spikes.pass_on(name, fired)
            states = [x for x in tensors_in(output) if x is not fired.values]
            for x in tensors_in(output, passed):
                makers.write(x, frozenset(((_STATE if any(x is y for y in states) else _SPIKES, name),)))
            return passed

        return hook

    device = device_of(model, inputs.device)
    spikes.begin()
    with evaluating(model), from_rest(model), torch.no_grad(), drawing(0, device):
        neurons = spiking_adapters(model).items()
        with hooked(
            neuron.register_forward_hook(note(name, adapter), with_kwargs=True) for name, (neuron, adapter) in neurons
        ):
            given = inputs.clone().to(device)
            makers.write(given, frozenset(((_INPUTS, ""),)))
            with makers:
                run(model, given)
    return found


def _driving(tensors: Sequence[Tensor], name: str, makers: Makers[_Made]) -> Tensor | None:
    """What drives a neuron, of all that it is given: what the inputs or other neurons had a part in; a state that it
    gave before, be it changed since, only where nothing else is there, and so one at rest."""
    likely: dict[int, list[Tensor]] = {0: [], 1: [], 2: []}
    for x in tensors:
        if x.ndim and x.numel() and x.layout is torch.strided:
            made_of = makers.of(x)
            is_own = made_of <= {(_SPIKES, name), (_STATE, name)}
            likely[is_own + (is_own and (_STATE, name) in made_of)].append(x)
    found = next(filter(None, likely.values()), [])
    return next(iter([x for x in found if bool(x.any())] or found), None)


def _digest(x: Tensor) -> bytes:
    # -0 is 0
    values = (x.detach() + 0).contiguous().flatten().view(torch.uint8)
    return sha256(values.cpu().numpy().tobytes()).digest()
