"""Running a network over images and adding up what each of them costs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from isofire.adapters import axis_by, input_axis, refuse_integers
from isofire.batches import Data, read_batches
from isofire.firing.cost.counting.all_steps import work_on_all_steps, worked_on_again
from isofire.firing.cost.counting.frames import calls_are_steps, holds_steps
from isofire.firing.cost.counting.meter import CostMeter
from isofire.firing.cost.counting.reuse import Image, Slot, calls_on_noise, comes_again, is_told, same_inputs
from isofire.firing.cost.counting.rows import rows_of
from isofire.firing.cost.counting.summed import Summed, is_lone, summed
from isofire.firing.cost.counting.tally import ACTIVE, ALL, DENSE, EVENTS, INPUTS, NONZERO, Lying, SiteTally, SpikeTally
from isofire.firing.cost.counting.together import Together, together_for
from isofire.firing.cost.left_out import LeftOut, left_out, strangers
from isofire.firing.cost.memory import memory_of
from isofire.firing.cost.percentiles import Percentiles
from isofire.firing.cost.report import Cost, NeuronCost, SynapseCost
from isofire.firing.cost.synops_per_spike import few_of
from isofire.firing.repeat import tell_unlike
from isofire.running import device_of, evaluating, require_numbers
from isofire.telling import Most

_TOGETHER = 32
"""Images a batch; more do not make it faster."""
_NOT_ASKED = (
    "taken T times at every step, though it may work on all steps in one call: too many such places to ask of each"
)


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
    # before the network is asked anything: only a float one can be
    refuse_integers(model)
    device = device_of(model)
    with evaluating(model):
        meter, most, shapes, unknown = CostMeter(model), Most(), dict[tuple[int, ...], Lying](), set[str]()
        axis, few, frames, way = 0, torch.empty(0), False, Together(together=False)
        for inputs, labels in read_batches(data, min(batch_size, _TOGETHER), max_images, axis_by(model)):
            axis, given = input_axis(model, inputs, len(labels)), inputs.to(device)
            if most.grows(inputs, axis):
                tell_unlike(model, inputs, len(labels))
                few = few_of(model, inputs, len(labels))[0]
                way = together_for(model, given, axis)
                frames = axis == 1 or holds_steps(model, few, axis, strangers=way.strangers)
            if (shape := _shape(inputs, axis)) not in shapes:
                some = few_of(model, inputs, len(labels))[0]
                shapes[shape], untold = rows_of(model, some, partial(way.run, axis=axis), frames=frames)
                unknown |= untold
            meter.lying = shapes[shape]
            # whose parts they are is not told by their number
            way = replace(way, together=way.together and not meter.lying.parts)
            with meter.counting():
                way.run(meter, given, axis)
        meter.lying = shapes.get(_shape(few, axis), Lying())
        same, by_numbers = ({}, []) if frames else _same(model, meter, few, partial(way.run, axis=axis))
        parts = {} if frames else _parts(model, meter, few, same)
        at_once = (
            {}
            if frames
            else work_on_all_steps(model, few, worked_on_again(meter, parts), strangers=bool(meter.strangers))
        )
    return _cost(model, meter, frames, same, parts, by_numbers, at_once, unknown)


def _shape(inputs: Tensor, axis: int) -> tuple[int, ...]:
    """Of one image."""
    return tuple(inputs.movedim(axis, 0).shape[1:])


def _same(
    model: nn.Module, meter: CostMeter, few: Tensor, run: Callable[[CostMeter, Tensor], None]
) -> tuple[dict[str, dict[Slot, Slot]], list[str]]:
    """Place -> which of the inputs that it multiplies come again, and places where equal numbers alone tell it."""
    found = {name: same_inputs(tally.images) for name, tally in meter.sites.items() if _multiplies(tally)}
    again = [name for name, same in found.items() if comes_again(same)]
    others: dict[str, list[Image]] = {}
    for of_data in (False, True):
        open_ = [name for name in again if not is_told(meter.sites[name].images, others.get(name, ()))]
        calls = calls_on_noise(model, few, run, of_data, meter.lying) if open_ else {}
        others |= {name: calls[name] for name in open_ if name in calls}
    told = {name: same_inputs(meter.sites[name].images, others.get(name, ())) for name in found}
    return told, [name for name in again if not is_told(meter.sites[name].images, others.get(name, ()))]


def _multiplies(tally: SiteTally) -> bool:
    return any(call.real or call.constant for image in tally.images for call in image)


def _parts(
    model: nn.Module, meter: CostMeter, few: Tensor, same: Mapping[str, Mapping[Slot, Slot]]
) -> dict[str, bool | None]:
    """Places called several times with a static image, and no neuron in between -> whether calls are steps, and not
    parts of the image that every step sees; None where that is not known."""
    found: dict[str, bool | None] = {}
    for name, tally in meter.sites.items():
        calls = {len(image) for image in tally.images if all(map(is_lone, image)) and any(call.real for call in image)
                 and len({call.neuron_calls for call in image}) == 1}  # fmt: skip
        again = comes_again(same.get(name, {}))
        if meter.steps > 1 and any(count > 1 and (again or count % meter.steps == 0) for count in calls):
            told = calls_are_steps(model, few, name, max(calls), strangers=bool(meter.strangers))
            # what comes again does so at other steps
            found[name] = True if told is None and again else told
    return found


def _cost(
    model: nn.Module,
    meter: CostMeter,
    frames: bool,
    same: Mapping[str, Mapping[Slot, Slot]],
    parts: Mapping[str, bool | None],
    by_numbers: Sequence[str],
    at_once: Mapping[str, bool | None],
    unknown: Collection[str],
) -> Cost:
    neurons = {name: tally.states for name, tally in meter.spikes.items()}
    found = {
        name: summed(
            tally,
            same.get(name, {}),
            meter.steps,
            frames=frames,
            stepped=meter.stepped,
            loops=parts.get(name),
            at_once=bool(at_once.get(name)),
        )
        for name, tally in meter.sites.items()
    }
    unsure = [(name, "its calls may be steps or parts of the image") for name, known in parts.items() if known is None]
    unsure += [(name, _NOT_ASKED) for name, known in at_once.items() if known is None]
    unsure += [(name, "its rows, as many as steps, may be steps or parts of the image") for name in sorted(unknown)]
    equal = "which of its inputs come again is told by equal numbers alone"
    images = len(next(iter(meter.spikes.values())).totals)
    synops = sum((item.sums[:, ALL] for item in found.values()), np.zeros(images))
    spikes = sum((torch.stack(tally.totals).sum(1) for tally in meter.spikes.values()), torch.zeros(images))
    memory = memory_of(model, neurons, meter.kept, meter.made.unnamed, meter.made.stored)
    return Cost(
        synapses=tuple(
            _synapse_cost(name, item, meter.sites[name], meter.made.read(name)) for name, item in found.items()
        ),
        neurons=tuple(_neuron_cost(name, tally) for name, tally in meter.spikes.items()),
        synops=Percentiles.of(synops),
        spikes=Percentiles.of(torch.as_tensor(spikes).numpy()),
        memory=memory,
        n_images=images,
        T=meter.steps,
        left_out=(
            *left_out(model, meter.trace, meter.steps, meter.kept),
            *(
                LeftOut(name=name, reason=reason, share=None, of="operations")
                for name, reason in (*unsure, *((name, equal) for name in by_numbers))
            ),
            *strangers(model, meter.strangers, sum(neurons.values()), "number of spikes, AER bits or neurons' energy"),
        ),
    )


def _synapse_cost(name: str, found: Summed, tally: SiteTally, weights: int) -> SynapseCost:
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
        weights=weights,
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
