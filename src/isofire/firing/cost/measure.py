"""Running a network over images and adding up what each of them costs."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from isofire.adapters import axis_by, refuse_integers
from isofire.batches import Data, read_batches
from isofire.firing.cost.counting.kinds import Asked, Kind, asked_of, same_of
from isofire.firing.cost.counting.meter import CostMeter
from isofire.firing.cost.counting.reuse import Slot
from isofire.firing.cost.counting.sizes import Sizes
from isofire.firing.cost.counting.summed import Summed, summed
from isofire.firing.cost.counting.tally import ACTIVE, ALL, DENSE, EVENTS, INPUTS, NONZERO, SiteTally, SpikeTally
from isofire.firing.cost.left_out import LeftOut, left_out, strangers
from isofire.firing.cost.memory import memory_of
from isofire.firing.cost.percentiles import Percentiles
from isofire.firing.cost.report import Cost, NeuronCost, SynapseCost
from isofire.running import device_of, evaluating, require_numbers

_TOGETHER = 32
"""Images a batch; more do not make it faster."""
_NOT_ASKED = (
    "taken T times at every step, though it may work on all steps in one call: too many such places to ask of each"
)

_TOO_MANY_WAYS = (
    "taken T times at every step for images of some sizes: layers are called in more ways than the network is asked of"
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
    with evaluating(model):
        meter, sizes = CostMeter(model), Sizes(model, device_of(model))
        of_image: list[Kind] = []

        def count(kind: Kind, inputs: Tensor) -> None:
            of_image.extend([kind] * inputs.shape[kind.axis])
            meter.lying = kind.lying
            with meter.counting():
                kind.way.run(meter, inputs, kind.axis)

        for inputs, labels in read_batches(data, min(batch_size, _TOGETHER), max_images, axis_by(model)):
            for kind, given in sizes.see(inputs, len(labels)):
                count(kind, given)
        for kind, given in sizes.left():
            count(kind, given)
        frames = sizes.frames
        same, by_numbers = ({}, []) if frames else same_of(model, meter, of_image)
        asked = [Asked({}, {})] * meter.images if frames else asked_of(model, meter, of_image, same)
    return _cost(model, meter, frames, same, asked, by_numbers, sizes.unknown)


def _cost(
    model: nn.Module,
    meter: CostMeter,
    frames: bool,
    same: Mapping[str, Mapping[Slot, Slot]],
    asked: Sequence[Asked],
    by_numbers: Sequence[str],
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
            loops=[its.loops.get(name) for its in asked],
            at_once=[bool(its.at_once.get(name)) for its in asked],
        )
        for name, tally in meter.sites.items()
    }
    unsure = [(name, "its calls may be steps or parts of the image") for name in _unknown(its.loops for its in asked)]
    unsure += [(name, _NOT_ASKED) for name in _unknown(its.at_once for its in asked)]
    unsure += [(name, _TOO_MANY_WAYS) for name in sorted(frozenset().union(*(its.unasked for its in asked)))]
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


def _unknown(told: Iterable[Mapping[str, bool | None]]) -> list[str]:
    """Places of which something is not known, of some images at least."""
    return list(dict.fromkeys(name for its in told for name, known in its.items() if known is None))


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
