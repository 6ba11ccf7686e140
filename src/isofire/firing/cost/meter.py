"""Counting what the inference of one image takes: spikes, events and operations at every place with weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from isofire.adapters import Adapter, batch_first
from isofire.errors import ModelError
from isofire.firing.cost.contacts import Arrival, Which
from isofire.firing.cost.events import Events, Source
from isofire.firing.cost.propagation import is_whole
from isofire.firing.cost.trace import Contact, Trace

ALL, NONZERO, EVENTS, ACTIVE, DENSE, INPUTS = range(6)
"""Rows of a call's sums: events times fan-out over all and over non-zero weights, non-zero inputs, synapses with a
non-zero input and weight, all synapses, inputs."""


@dataclass
class SiteCall:
    """One operation of one inference, [6, r] with r = 1, or T where its rows are known to be steps.

    Parameters
    ----------
    counted
        Whether what arrived was a sum of events.
    by_value
        Whether events were told by values being whole numbers, which by chance others are too.
    static
        Keys of the r inputs, where they come from the image alone; equal keys are equal inputs.
    """

    sums: Tensor
    counted: bool
    by_value: bool
    neuron_calls: int
    static: tuple[int, ...] | None


@dataclass
class SiteTally:
    """One place with weights: the calls of every image, in their order."""

    fan_in: int
    through: frozenset[str] = frozenset()
    images: list[list[SiteCall]] = field(default_factory=list)


@dataclass
class SpikeTally:
    """Spikes of one layer of neurons, [T] an image."""

    neurons: int = 0
    totals: list[Tensor] = field(default_factory=list)
    calls: list[Tensor] = field(default_factory=list)


class CostMeter:
    """Counts in the passes made by `run` inside `counting`, each of one image.

    One image at a time, since what belongs to which image is then no question, whatever a network does with its axes.

    Parameters
    ----------
    model
        The network, in eval mode.
    copies
        How often the image stands in a batch, for a network that takes batches of one size only.
    """

    def __init__(self, model: nn.Module, copies: int = 1) -> None:
        self.model, self.copies = model, copies
        self.trace = Trace(model, self._contact, self._fired)
        self.spikes = {name: SpikeTally() for name in self.trace.neurons}
        self.sites: dict[str, SiteTally] = {}
        self.steps = 0
        self._batch_first = batch_first(model)
        self._calls: list[tuple[Contact, Tensor, tuple[int, ...] | None]] = []
        self._fans: dict[tuple[Any, ...], Tensor] = {}

    @contextmanager
    def counting(self) -> Iterator[CostMeter]:
        """Hooks on the model, and none left behind."""
        with self.trace.following():
            yield self

    def run(self, inputs: Tensor, forward: Any) -> None:
        """One forward pass of one image, `copies` times beside itself.

        Raises
        ------
        ModelError
            If a layer of neurons was not called, or in an order of axes that cannot be told.
        """
        self._calls.clear()
        for tally in self.spikes.values():
            tally.calls.clear()
        self.trace.run(inputs, forward)
        for name, tally in self.spikes.items():
            tally.totals.append(self._settled_spikes(name, tally))
        seen: dict[str, list[SiteCall]] = {}
        for contact, sums, keys in self._calls:
            tally = self.sites.setdefault(contact.site, SiteTally(contact.arrival.fan_in))
            tally.through |= contact.events.through
            seen.setdefault(contact.site, []).append(self._settled(contact, sums, keys))
        for name, tally in self.sites.items():
            tally.images.append(seen.get(name, []))

    def _settled_spikes(self, name: str, tally: SpikeTally) -> Tensor:
        if not tally.calls:
            raise ModelError(f"every neuron must be called in each forward, {name!r} was not")
        total = torch.cat(tally.calls)
        self.steps = self.steps or len(total)
        if tuple(total.shape) != (self.steps, self.copies):
            raise ModelError(
                f"neurons must see [T, N, ...] with T = {self.steps}, N = {self.copies}, {name!r} saw "
                f"{list(total.shape)}; give every place its own neuron module"
            )
        return total.sum(1) / self.copies

    def _fired(self, name: str, module: nn.Module, adapter: Adapter, output: Any) -> Events:
        spikes = adapter.spikes(module, output).detach()
        tally = self.spikes[name]
        tally.neurons = spikes[0, 0].numel()
        tally.calls.append(spikes.flatten(2).sum(2, dtype=torch.float64).cpu())
        values = output[0] if isinstance(output, tuple) else output
        # spikes of a height that is no whole number are one event each
        whole = is_whole(values)
        return Events(values.detach().double() if whole else (values.detach() / height_of(module, adapter, values)).double(), whole)

    def _contact(self, contact: Contact) -> None:
        self.trace.pause(True)
        arrival, x = contact.arrival, contact.arrival.x
        if x is None:
            sums = torch.tensor([0, 0, 0, arrival.synapses, arrival.synapses, 0], dtype=torch.float64).unsqueeze(1)
            self._calls.append((contact, sums, None))
            self.trace.pause(False)
            return
        x = x.detach()
        every, real = self._fan(arrival, "all"), self._fan(arrival, "nonzero")
        count = contact.events.count
        active = (x != 0).double()
        rows = [torch.zeros_like(active) if count is None else count * fan for fan in (every, real)]
        rows += [active, active * real, every.expand(x.shape), torch.ones_like(active)]
        axes = [axis for axis in range(x.ndim) if axis != arrival.axis]
        # copies of the image share its cost
        summed = torch.stack([row.sum(axes) if axes and x.ndim > 1 else row.sum().reshape(1) for row in rows]).cpu()
        keys = None
        if contact.source == Source.INPUT:
            where = arrival.weight.storage_offset() if arrival.weight is not None else 0
            parts = x.movedim(arrival.axis, 0) if x.ndim > 1 else x.unsqueeze(0)
            keys = tuple(hash((where, row.contiguous().cpu().numpy().tobytes())) for row in parts)
        self._calls.append((contact, summed, keys))
        self.trace.pause(False)

    def _fan(self, arrival: Arrival, which: Which) -> Tensor:
        weight, x = arrival.weight, arrival.x
        assert weight is not None and x is not None
        kept = self.trace.is_stored(weight)
        shape = tuple(x.shape[1:]) if arrival.axis == 0 else tuple(x.shape)
        key = (which, weight.untyped_storage()._cdata, weight.storage_offset(), tuple(weight.shape), weight.stride(), shape)
        if kept and key in self._fans:
            return self._fans[key]
        found = arrival.fan_out(which).to(x.device)
        if kept:
            self._fans[key] = found
        return found

    def _settled(self, contact: Contact, sums: Tensor, keys: tuple[int, ...] | None) -> SiteCall:
        """Rows put together by steps where they are known to be steps, else all together."""
        steps = self._steps_of(contact, sums.shape[1])
        sums = sums / self.copies
        if steps is None:
            sums, keys = sums.sum(1, keepdim=True), None if keys is None else (hash(keys),)
        else:
            rows = torch.arange(sums.shape[1])
            sums = torch.stack([sums[:, rows[steps == t]].sum(1) for t in range(self.steps)], 1)
            if keys is not None:
                keys = tuple(hash(tuple(key for key, t in zip(keys, steps, strict=True) if t == s)) for s in range(self.steps))
        events = contact.events
        return SiteCall(sums, events.count is not None, bool(events.through), contact.neuron_calls, keys)

    def _steps_of(self, contact: Contact, rows: int) -> Tensor | None:
        """Step of each row; None where that is not known, or they are all of one."""
        steps, copies, lead = self.steps, self.copies, contact.lead
        if rows % steps or steps == 1:
            return None
        index = torch.arange(rows)
        if not lead:
            known = rows == steps * copies
            return (index % steps if self._batch_first else index // copies) if known else None
        if self._batch_first:
            if lead[0] in (steps * copies, rows) or lead[:2] == (copies, steps):
                return index // (rows // (steps * copies)) % steps
            return None
        return index // (rows // steps) if lead[0] in (steps, steps * copies) else None


def height_of(module: nn.Module, adapter: Adapter, values: Tensor) -> float:
    """What a spike is in the neuron's output: 1, or the height of its graded spikes."""
    counts = adapter.spikes(module, torch.ones_like(values))
    return 1 / float(counts.flatten()[0])
