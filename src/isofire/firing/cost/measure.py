"""Running a network over images and adding up what each of them costs."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from isofire.adapters import axis_by, input_axis
from isofire.batches import Data, read_batches
from isofire.errors import ModelError
from isofire.firing.cost.frames import calls_are_steps, holds_steps
from isofire.firing.cost.left_out import LeftOut, left_out
from isofire.firing.cost.memory import memory_of
from isofire.firing.cost.meter import ACTIVE, ALL, DENSE, EVENTS, INPUTS, NONZERO, REAL, CostMeter, SiteCall, SpikeTally
from isofire.firing.cost.meter import SiteTally as Tally
from isofire.firing.cost.percentiles import Percentiles
from isofire.firing.cost.report import Cost, NeuronCost, SynapseCost
from isofire.firing.cost.synops_per_spike import few_of
from isofire.firing.record import spiking_adapters
from isofire.firing.repeat import tell_unlike
from isofire.running import device_of, evaluating, forward, require_numbers

_TOGETHER = 32
"""Images a batch; more do not make it faster."""


def measure_cost(model: nn.Module, data: Data, *, max_images: int | None = None, batch_size: int = 64) -> Cost:
    """Exact operations, spikes and memory of one inference, and how they vary from image to image.

    Its own pass over the images, operation by operation: recording firing stays as fast as it was.

    Parameters
    ----------
    model
        Full precision or quantized, on the device where it is to run.
    data, max_images, batch_size
        As in `isofire.compare`.

    Raises
    ------
    ModelError, DataError, SpecError
        As `isofire.compare`.

    Examples
    --------
    >>> cost = measure_cost(model, test_set, max_images=500)  # doctest: +SKIP
    >>> cost.synops.p99, cost.energy().total  # doctest: +SKIP
    """
    require_numbers(model)
    device = device_of(model)
    with evaluating(model):
        batches = read_batches(data, min(batch_size, _TOGETHER), max_images, axis_by(model))
        first = next(batches)
        tell_unlike(model, first[0], len(first[1]))
        axis = input_axis(model, first[0], len(first[1]))
        few = few_of(model, first[0], len(first[1]))[0]
        frames = axis == 1 or holds_steps(model, few, axis)
        way = _way_for(model, first[0].to(device), axis)
        meter = CostMeter(model)
        with meter.counting():
            for inputs, labels in itertools.chain([first], batches):
                way.run(meter, inputs.to(device), input_axis(model, inputs, len(labels)))
        parts = {} if frames else _parts(model, meter, few)
    return _cost(model, meter, frames, parts)


def _parts(model: nn.Module, meter: CostMeter, few: Tensor) -> dict[str, bool | None]:
    """Places called as often as there are steps, before any neuron and each time with something else of a static image
    -> whether each call is a step, and not a part of the image that every step sees; None where that is not known."""
    asked = [name for name, tally in meter.sites.items()
             if any(len(image) == meter.steps > 1 and all(map(_is_lone, image)) and any(call.real for call in image)
                    and len({call.neuron_calls for call in image}) == 1 for image in tally.images)
             and _rounds([[call.static for call in image] for image in tally.images]) == 1]  # fmt: skip
    return {name: calls_are_steps(model, few, name, meter.steps) for name in asked}


@dataclass(frozen=True)
class _Way:
    """How images go through the network: in batches, one by one, or one by one in a batch of repetitions.

    In a batch, what belongs to which image has to be told from the axes of what arrives at each place. That is trusted
    where it gives for the first images what each gives alone.
    """

    together: bool
    copies: int = 1

    def run(self, meter: CostMeter, inputs: Tensor, axis: int) -> None:
        """All images of a batch."""
        images = inputs.shape[axis]
        # as many images as steps would leave open which is which
        if self.together and images > 1 and images != meter.steps:
            meter.run(inputs, images, forward)
            return
        for place in range(images):
            image = inputs.narrow(axis, place, 1).repeat_interleave(self.copies, axis)
            meter.run(image, self.copies, forward, alike=True)


def _way_for(model: nn.Module, inputs: Tensor, axis: int) -> _Way:
    images = inputs.shape[axis]
    sizes = {size for neuron, adapter in spiking_adapters(model).values() if (size := adapter.batch_size(neuron))}
    if sizes:
        return _Way(together=False, copies=max(sizes))
    alone = CostMeter(model)
    try:
        with alone.counting():
            _Way(together=False).run(alone, inputs.narrow(axis, 0, min(2, images)), axis)
    except ModelError:
        if images == 1:
            raise
        return _Way(together=False, copies=images)
    few = next((n for n in (2, 3) if n != alone.steps), 2)
    if images < few:
        return _Way(together=False)
    together = CostMeter(model)
    try:
        with together.counting():
            together.run(inputs.narrow(axis, 0, few), few, forward)
    except ModelError:
        return _Way(together=False)
    agree = _agree(alone, together)
    if agree and together.trace.uses.read_by is not None:
        # where Python reads what images made, it may decide by all of them what is done with each
        agree = _agree_on_all(model, inputs.narrow(axis, 0, images - (images == alone.steps)), axis)
    return _Way(together=agree)


def _agree_on_all(model: nn.Module, inputs: Tensor, axis: int) -> bool:
    """Whether each image of a batch costs the same alone."""
    alone, together = CostMeter(model), CostMeter(model)
    try:
        with alone.counting():
            _Way(together=False).run(alone, inputs, axis)
        with together.counting():
            together.run(inputs, inputs.shape[axis], forward)
    except ModelError:
        return False
    return alone.sites.keys() == together.sites.keys() and all(
        len(one) == len(other) and all(map(_equal, one, other))
        for name, tally in alone.sites.items()
        for one, other in zip(tally.images, together.sites[name].images, strict=True)
    )


def _agree(alone: CostMeter, together: CostMeter) -> bool:
    """Whether the first two images cost the same alone and in a batch, in every place, and not by being alike."""
    if list(alone.sites) != list(together.sites):
        return False
    for name, tally in alone.sites.items():
        for one, other in zip(tally.images, together.sites[name].images, strict=False):
            if len(one) != len(other) or not all(_equal(a, b) for a, b in zip(one, other, strict=True)):
                return False
        first, second = (torch.cat([call.sums.sum(1) for call in calls]) for calls in tally.images)
        if name in together.unsure and torch.equal(first, second):
            return False
    return True


def _equal(a: SiteCall, b: SiteCall) -> bool:
    return a.sums.shape == b.sums.shape and torch.allclose(a.sums, b.sums, rtol=1e-9)


def _cost(model: nn.Module, meter: CostMeter, frames: bool, parts: Mapping[str, bool | None]) -> Cost:
    neurons = {name: tally.neurons for name, tally in meter.spikes.items()}
    summed = {
        name: _summed(tally, meter.steps, frames, meter.stepped, parts.get(name) is not False)
        for name, tally in meter.sites.items()
    }
    unsure = tuple(
        LeftOut(name=name, reason="its calls may be steps or parts of the image", share=None, of="operations")
        for name, known in parts.items() if known is None
    )  # fmt: skip
    images = len(next(iter(meter.spikes.values())).totals)
    synops = sum((item.sums[:, ALL] for item in summed.values()), np.zeros(images))
    spikes = sum((torch.stack(tally.totals).sum(1) for tally in meter.spikes.values()), torch.zeros(images))
    memory = memory_of(model, neurons, meter.kept, meter.fixed)
    return Cost(
        synapses=tuple(_synapse_cost(name, item, meter.sites[name]) for name, item in summed.items()),
        neurons=tuple(_neuron_cost(name, tally) for name, tally in meter.spikes.items()),
        synops=Percentiles.of(synops),
        spikes=Percentiles.of(torch.as_tensor(spikes).numpy()),
        memory=memory,
        n_images=images,
        T=meter.steps,
        left_out=(*left_out(model, meter.trace, meter.steps, meter.kept), *unsure),
    )


@dataclass(frozen=True)
class _Summed:
    """Of one site: sums [N, 7], multiply-accumulates [N] worked on once and at every step, events [N, T or 1]."""

    sums: np.ndarray
    once: np.ndarray
    every: np.ndarray
    events: np.ndarray
    counted: bool


def _summed(tally: Tally, steps: int, frames: bool, stepped: bool, loops: bool) -> _Summed:
    calls = max(map(len, tally.images))
    by_slot = [[image[slot] for image in tally.images if slot < len(image)] for slot in range(calls)]
    counted = _counted(by_slot)
    if not all(counted):
        # beside calls that see no events, values that are whole numbers are so by chance
        guessed = [any(call.by_value and call.static is None for call in slot) for slot in by_slot]
        counted = [sure and not guess for sure, guess in zip(counted, guessed, strict=True)]
    kept = [[_kept(call, sure) for call, sure in zip(image, counted, strict=False)] for image in tally.images]
    dense = [[call for call, sure in zip(image, counted, strict=False) if call.real or not sure] for image in kept]
    rounds = _rounds([[call.static for call in image if _is_lone(call)] for image in dense])
    rows, once, every, events = [], [], [], []
    for image, its, multiplied in zip(tally.images, kept, dense, strict=True):
        rows.append(sum((call.sums.sum(1).numpy() for call in its), np.zeros(REAL + 1)))
        looped = loops and len(image) == steps > 1
        first, second = _multiplications(multiplied, steps, frames, stepped, looped, rounds)
        once.append(first)
        every.append(second)
        found = _events(image, steps)
        events.append(found if loops else found.sum(keepdims=True))
    length = min(len(item) for item in events)
    per_step = np.stack([item if len(item) == length else item.sum(keepdims=True) for item in events])
    total = np.stack(rows)
    return _Summed(total, np.array(once), np.array(every), per_step, all(counted) and not total[:, REAL].any())


def _counted(by_slot: list[list[SiteCall]]) -> list[bool]:
    """Whether events arrive in each call; a constant is one where all else that arrives there is."""
    fixed = [all(call.constant for call in slot) for slot in by_slot]
    counted = [all(call.counted for call in slot) for slot in by_slot]
    moving = [sure for sure, still in zip(counted, fixed, strict=True) if not still]
    return [sure and (not still or (bool(moving) and all(moving))) for sure, still in zip(counted, fixed, strict=True)]


def _kept(call: SiteCall, counted: bool) -> SiteCall:
    """The call with its events, or all of it as a product."""
    if counted:
        return call
    sums = call.sums.clone()
    sums[[ALL, NONZERO]], sums[REAL] = 0, sums[DENSE]
    return replace(call, sums=sums)


def _is_lone(call: SiteCall) -> bool:
    """Whether it sees something of the image, all at once."""
    return call.static is not None and len(call.static) == 1 and not call.constant


def _rounds(images: list[list[Any]]) -> int:
    """How often the calls go through the same inputs, which come as often each, in every image.

    That some parts of an image are alike, such as blank ones, is no round.
    """
    return math.gcd(*Counter(itertools.zip_longest(*images)).values()) or 1


def _multiplications(
    calls: list[SiteCall], steps: int, frames: bool, stepped: bool, looped: bool, rounds: int
) -> tuple[float, float]:
    """Multiply-accumulates of one image, a static input worked on once, and at every step.

    What a forward does once with the image is reused, and so is taken T times for the latter; not so what depends on
    nothing (a state at rest), nor a first step of weights that are used at each (`looped`). Where neurons run between
    calls of a layer, that is a loop over time if they see single steps (`stepped`), and other images if they see all;
    and it is a loop if there are several `rounds`.
    """
    executed = sum(map(_real, calls))
    static = [call for call in calls if call.static is not None]
    if frames or not static:
        return executed, executed
    lone = [call for call in static if _is_lone(call)]
    others = [call for call in static if not _is_lone(call)]
    stepwise: dict[int, float] = {}
    for call in others:
        stepwise |= dict(zip(call.static or (), call.sums[REAL].tolist(), strict=True))
    moving = executed - sum(map(_real, static))
    between = len({call.neuron_calls for call in lone}) > 1
    again = rounds > 1 or (stepped if between else looped)
    once = sum(map(_real, lone)) / rounds + sum(stepwise.values())
    every = sum(map(_real, lone)) * (1 if again else steps) + sum(map(_real, others))
    return once + moving, every + moving


def _real(call: SiteCall) -> float:
    return float(call.sums[REAL].sum())


def _events(calls: list[SiteCall], steps: int) -> np.ndarray:
    """Non-zero inputs of each step, [T]; of all steps together, [1], where they cannot be told apart."""
    total = np.zeros(steps)
    lone = [call for call in calls if call.sums.shape[1] == 1]
    for call in calls:
        if call.sums.shape[1] == steps > 1:
            total += call.sums[EVENTS].numpy()
    if not lone or steps == 1:
        return total if steps > 1 else np.array([sum(float(call.sums[EVENTS].sum()) for call in calls)])
    values = np.array([float(call.sums[EVENTS].sum()) for call in lone])
    if len(lone) % steps or len(lone) != len(calls):
        return np.array([values.sum() + total.sum()])
    # a loop over steps has neurons between its calls of a layer, or is the layer's own
    inner = len({call.neuron_calls for call in lone}) >= steps
    return values.reshape(steps, -1).sum(1) if inner else values.reshape(-1, steps).sum(0)


def _synapse_cost(name: str, found: _Summed, tally: Tally) -> SynapseCost:
    sums = found.sums.sum(0)
    once, every = float(found.once.mean()), float(found.every.mean())
    return SynapseCost(
        name=name,
        event_driven=found.counted,
        synops=Percentiles.of(found.sums[:, ALL]),
        synops_nonzero=Percentiles.of(found.sums[:, NONZERO]),
        macs_once=_whole(once),
        macs_every_step=_whole(every),
        events=Percentiles.of(found.sums[:, EVENTS]),
        events_per_step=tuple(Percentiles.of(step) for step in found.events.T),
        density=float(sums[EVENTS] / sums[INPUTS]) if sums[INPUTS] else 1.0,
        effective=float(sums[ACTIVE] / sums[DENSE]) if sums[DENSE] else 1.0,
        fan_in=tally.fan_in,
        through=tuple(sorted(tally.through)),
    )


def _whole(value: float) -> float:
    return int(value) if value == int(value) else value


def _neuron_cost(name: str, tally: SpikeTally) -> NeuronCost:
    totals = torch.stack(tally.totals, 1)
    return NeuronCost(
        name=name,
        neurons=tally.neurons,
        spikes=Percentiles.of(totals.sum(0).numpy()),
        spikes_per_step=tuple(Percentiles.of(step.numpy()) for step in totals),
    )
