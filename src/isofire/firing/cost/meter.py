"""Counting what one inference takes: spikes, events and synaptic operations of every image, layer and step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from isofire.adapters import Adapter, batch_first, from_rest
from isofire.errors import ModelError
from isofire.firing.cost.synapses import Weighted, fan_out, is_whole, sample_dims, weighted_layers
from isofire.firing.record import spiking_adapters
from isofire.quantization.temporal import TemporalLayer

ALL, NONZERO, EVENTS, ACTIVE_ALL, ACTIVE_NONZERO = range(5)
"""Columns of a layer's sums: value x fan-out over all and over non-zero weights, non-zero inputs, and the fan-outs of
non-zero inputs whatever their value."""


@dataclass
class SynapseTally:
    """Sums of one weighted layer, [columns, r, images] with r = 1 (seen once) or T, appended batch by batch."""

    layer: Weighted
    sums: list[Tensor] = field(default_factory=list)
    inputs: int = 0
    dense: int = 0
    whole: bool = True
    before_neurons: bool = False
    fans: Tensor | None = None
    calls: list[tuple[Tensor, tuple[int, ...]]] = field(default_factory=list)


@dataclass
class SpikeTally:
    """Spikes of one layer of neurons, [T, images], appended batch by batch."""

    neurons: int = 0
    totals: list[Tensor] = field(default_factory=list)
    calls: list[Tensor] = field(default_factory=list)


class CostMeter:
    """Counts in the forward passes made inside `counting`; each call of the model is one batch, run from rest.

    Every call keeps a few numbers an image and layer, no spikes. It runs beside no recorder: it reads every input of
    every weighted layer, which costs about as much as the network itself.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.neurons = spiking_adapters(model)
        self.spikes = {name: SpikeTally() for name in self.neurons}
        self.synapses = {name: SynapseTally(layer) for name, layer in weighted_layers(model).items()}
        self.steps = 0
        self._batch_first = batch_first(model)

    @contextmanager
    def counting(self) -> Iterator[CostMeter]:
        """Hooks on the model, and none left behind."""
        handles = [neuron.register_forward_hook(self._spike_hook(name, adapter))
                   for name, (neuron, adapter) in self.neurons.items()]  # fmt: skip
        handles += [tally.layer.register_forward_pre_hook(self._input_hook(tally)) for tally in self.synapses.values()]
        try:
            with from_rest(self.model):
                yield self
        finally:
            for handle in handles:
                handle.remove()

    def end_batch(self, images: int) -> None:
        """Settle the calls of one forward pass of `images` images.

        Raises
        ------
        ModelError
            If a layer of neurons or weights was not called, or in an order of axes that cannot be told.
        """
        for name, tally in self.spikes.items():
            if not tally.calls:
                raise ModelError(f"every neuron must be called in each forward, {name!r} was not")
            total = torch.cat(tally.calls)
            self.steps = self.steps or len(total)
            if tuple(total.shape) != (self.steps, images):
                raise ModelError(
                    f"neurons must see [T, N, ...] with T = {self.steps}, N = {images}, {name!r} saw "
                    f"{list(total.shape)}; give every place its own neuron module"
                )
            tally.totals.append(total)
            tally.calls.clear()
        for name, tally in self.synapses.items():
            if tally.calls:
                tally.sums.append(self._settled(name, tally, images))
                tally.calls.clear()

    def _spike_hook(self, name: str, adapter: Adapter) -> Any:
        def hook(module: nn.Module, _inputs: Any, output: Any) -> None:
            spikes = adapter.spikes(module, output).detach()
            tally = self.spikes[name]
            tally.neurons = spikes[0, 0].numel()
            tally.calls.append(spikes.flatten(2).sum(2, dtype=torch.float64).cpu())

        return hook

    def _input_hook(self, tally: SynapseTally) -> Any:
        def hook(_module: nn.Module, inputs: tuple[Any, ...]) -> None:
            x = inputs[0].detach()
            dims = sample_dims(tally.layer)
            lead, shape = tuple(x.shape[: x.ndim - dims]), tuple(x.shape[x.ndim - dims :])
            if tally.fans is None:
                tally.fans = _fans(tally.layer, shape).to(x.device)
                tally.inputs = tally.fans.shape[-1]
                tally.dense = int((tally.fans[0, ALL] if tally.fans.ndim == 3 else tally.fans[ALL]).sum())
                tally.before_neurons = not any(spikes.calls for spikes in self.spikes.values())
            tally.whole = tally.whole and is_whole(x)
            tally.calls.append((_sums(x.reshape(-1, tally.inputs), lead, tally.fans), lead))

        return hook

    def _settled(self, name: str, tally: SynapseTally, images: int) -> Tensor:
        parts = [self._arranged(name, sums, lead, images) for sums, lead in tally.calls]
        if len(parts) == self.steps > 1 and all(part.shape[1] == 1 for part in parts):
            return torch.cat(parts, 1)
        if any(part.shape != parts[0].shape for part in parts):
            raise ModelError(f"{name!r} was called {len(parts)} times in one forward, each time with other axes")
        return torch.stack(parts).sum(0)

    def _arranged(self, name: str, sums: Tensor, lead: tuple[int, ...], images: int) -> Tensor:
        """[columns, rows] with rows = `lead` flattened, as [columns, r, images]."""
        columns, steps = len(sums), self.steps
        if lead[:2] == (steps, images) or lead[0] == steps * images:
            if self._batch_first and lead[0] == steps * images:
                return sums.view(columns, images, steps, -1).sum(3).transpose(1, 2)
            return sums.view(columns, steps, images, -1).sum(3)
        if self._batch_first and lead[:2] == (images, steps):
            return sums.view(columns, images, steps, -1).sum(3).transpose(1, 2)
        if lead[0] == images:
            return sums.view(columns, 1, images, -1).sum(3)
        raise ModelError(
            f"the inputs of {name!r} must be [T, N, ...], [T * N, ...] or [N, ...] with T = {steps} and N = {images}, "
            f"got {list(lead)} before the axes of one input"
        )


def _fans(layer: Weighted, shape: tuple[int, ...]) -> Tensor:
    """Fan-outs over all and over non-zero weights, [2, inputs], or [T, 2, inputs]."""
    both = torch.stack([fan_out(layer, shape, "all"), fan_out(layer, shape, "nonzero")])
    return both.flatten(2).transpose(0, 1) if isinstance(layer, TemporalLayer) else both.flatten(1)


def _sums(rows: Tensor, lead: tuple[int, ...], fans: Tensor) -> Tensor:
    """[columns, rows], see `ALL`."""
    values, active = rows.double(), (rows != 0).double()
    if fans.ndim == 3:
        steps = lead[0]
        values, active = values.view(steps, -1, values.shape[1]), active.view(steps, -1, active.shape[1])
    weighted, reached = values @ fans.mT, active @ fans.mT
    weighted, reached = weighted.flatten(0, -2), reached.flatten(0, -2)
    events = active.sum(-1).flatten()
    return torch.stack([weighted[:, 0], weighted[:, 1], events, reached[:, 0], reached[:, 1]]).cpu()
