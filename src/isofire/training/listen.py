"""Listening to the neurons of a network in one forward pass, with the gradient that a loss needs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from isofire.adapters import Adapter, Layout, at_one_place
from isofire.adapters.own import only_looks
from isofire.errors import ModelError
from isofire.firing.record import called_again, require_spikes, spiking_adapters
from isofire.neurons import MembraneQuantizer, Neuron
from isofire.neurons.counting import over_images, zero_counts
from isofire.running import OfOnePass
from isofire.training.step import Pass


class Listener(OfOnePass):
    """Takes rates, spikes or membranes of every layer of spiking neurons from one forward pass at a time.

    Neurons of every library that isofire knows, in whatever layout, also those that see single steps.

    Parameters
    ----------
    model
        Must hold at least one spiking neuron.

    Raises
    ------
    ModelError
        If it holds none.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model, self.neurons = model, spiking_adapters(model)
        self._spikes: dict[str, list[Tensor]] = {}
        self._summed: dict[str, list[Tensor]] = {}
        self._membranes: dict[str, list[Tensor]] = {}

    @contextmanager
    def listening(self, needs: Collection[str]) -> Iterator[None]:
        """Listen to the one forward pass inside."""
        self._spikes, self._summed, self._membranes = {}, {}, {}
        with ExitStack() as stack:
            stack.enter_context(at_one_place(self.model, self.neurons))
            for name, (neuron, adapter) in self.neurons.items():
                if "membranes" in needs:
                    self._probe(stack, name, neuron, adapter)
                if "spikes" in needs or "rates" in needs:
                    stack.callback(neuron.register_forward_hook(self._hook(name, adapter)).remove)
                    if "rates" in needs:
                        adapter.begin_counting(neuron)
                        stack.callback(adapter.end_counting, neuron)
            yield

    def heard(self, logits: Tensor, needs: Collection[str]) -> Pass:
        """What the last pass gave, beside its logits.

        Raises
        ------
        ModelError
            If a layer was not called, was called more than once where it sees all steps at once, or gave no spikes
            [T, N, ...].
        """
        rates, spikes, membranes, presentations = None, None, None, 0
        if "rates" in needs or "spikes" in needs:
            presentations = self._presentations()
        if "rates" in needs:
            rates = {name: self._rates(name) for name in self.neurons}
        if "spikes" in needs:
            spikes = {name: torch.cat(self._spikes[name]) for name in self.neurons}
        if "membranes" in needs:
            membranes = {name: self._membrane(name) for name in self.neurons}
        # nothing of this pass is kept from being freed
        self._spikes, self._summed, self._membranes = {}, {}, {}
        return Pass(logits=logits, presentations=presentations, rates_=rates, spikes_=spikes, membranes_=membranes)

    # -- spikes ------------------------------------------------------------------------------------------------------

    def _hook(self, name: str, adapter: Adapter) -> Callable[..., None]:
        @only_looks
        def hook(neuron: nn.Module, _inputs: Any, output: Any) -> None:
            spikes = adapter.spikes(neuron, output)
            require_spikes(name, spikes)
            calls = self._spikes.setdefault(name, [])
            if calls and adapter.layout(neuron) is not Layout.STEP:
                raise called_again(self.model, name)
            calls.append(spikes)
            summed = adapter.summed(neuron)
            if summed is not None:
                # before the next call writes over it
                self._summed.setdefault(name, []).append(over_images(summed))

        return hook

    def _presentations(self) -> int:
        found = set()
        for name in self.neurons:
            calls = self._spikes.get(name)
            if not calls:
                raise ModelError(
                    f"a loss listens to every neuron, {name!r} was not called in this forward; train without that "
                    "loss, or take the neuron out of the model"
                )
            found.add((sum(len(spikes) for spikes in calls), calls[0].shape[1]))
        if len(found) > 1:
            raise ModelError(f"all neurons must see the same steps and images, got [T, N] of {sorted(found)}")
        ((steps, images),) = found
        return steps * images

    def _rates(self, name: str) -> Tensor:
        calls, summed = self._spikes[name], self._summed.get(name, [])
        known = summed if len(summed) == len(calls) else [None] * len(calls)
        presentations = sum(len(spikes) * spikes.shape[1] for spikes in calls)
        parts = [_Sum.apply(spikes, count) for spikes, count in zip(calls, known, strict=True)]
        total = parts[0]
        for part in parts[1:]:
            total = total + part
        return total / presentations

    # -- membranes ---------------------------------------------------------------------------------------------------

    def _probe(self, stack: ExitStack, name: str, neuron: nn.Module, adapter: Adapter) -> None:
        place, kept = adapter.membrane(neuron), self._membranes.setdefault(name, [])
        if place is None:
            place = MembraneQuantizer(_Unchanged(), "pre_fire")  # pyright: ignore[reportArgumentType]
            adapter.attach(neuron, place)
            stack.callback(adapter.detach, neuron)
        if isinstance(neuron, Neuron):
            # the fast paths keep their states to themselves
            stack.callback(setattr, neuron, "backend", neuron.backend)
            neuron.backend = "reference"
        threshold = adapter.threshold(neuron).detach().double().mean().item()

        def hear(_module: nn.Module, _inputs: Any, state: Tensor) -> None:
            kept.append(state / threshold)

        stack.callback(place.register_forward_hook(hear).remove)

    def _membrane(self, name: str) -> Tensor:
        if not self._membranes[name]:
            raise ModelError(
                f"a loss asks for membranes, neuron {name!r} showed none in this forward; train without it"
            )
        return torch.stack(self._membranes[name])


class _Unchanged(nn.Module):
    """Stands where a membrane quantizer would, and lets states pass."""

    axis = None

    def forward(self, state: Tensor) -> Tensor:
        return state


class _Sum(torch.autograd.Function):
    """Spikes [T, N, ...] -> their sum per neuron, float32 [...]; `count` is that sum where the neuron has made it.

    The gradient is a view without memory of its own, in the spikes' memory order, which autograd adds to that of their
    other use.
    """

    @staticmethod
    def forward(ctx: Any, spikes: Tensor, count: Tensor | None) -> Tensor:
        ctx.shape, ctx.dtype = spikes.shape, spikes.dtype
        exact = torch.float64 if spikes.dtype == torch.float64 else torch.float32
        found = spikes.sum((0, 1), dtype=exact) if count is None else count.to(exact)
        ctx.strides = found.stride() if count is not None else zero_counts(1, spikes)[0].stride()
        return found

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        laid_out = torch.empty_strided(ctx.shape[2:], ctx.strides, dtype=ctx.dtype, device=grads[0].device)
        return laid_out.copy_(grads[0]).expand(ctx.shape), None
