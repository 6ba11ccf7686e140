"""Running a network over images and adding up what each of them costs."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from isofire.batches import Data, read_batches
from isofire.firing.cost.memory import memory_of
from isofire.firing.cost.meter import ACTIVE_NONZERO, ALL, EVENTS, NONZERO, CostMeter, SpikeTally, SynapseTally
from isofire.firing.cost.percentiles import Percentiles
from isofire.firing.cost.report import Cost, NeuronCost, SynapseCost
from isofire.firing.cost.synapses import fan_in
from isofire.running import device_of, evaluating, forward, require_finite


def measure_cost(model: nn.Module, data: Data, *, max_images: int | None = None, batch_size: int = 64) -> Cost:
    """Exact operations, spikes and memory of one inference, and how they vary from image to image.

    Its own pass over the images, since it reads the inputs of every weighted layer: recording firing stays as fast as
    it was.

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
    require_finite(model)
    meter = CostMeter(model)
    device = device_of(model)
    images = 0
    with evaluating(model), torch.no_grad(), meter.counting():
        for inputs, labels in read_batches(data, batch_size, max_images):
            forward(model, inputs.to(device))
            meter.end_batch(len(labels))
            images += len(labels)
    neurons = {name: tally.neurons for name, tally in meter.spikes.items()}
    seen = {name: tally for name, tally in meter.synapses.items() if tally.sums}
    layers = {name: _synapse_cost(name, tally, meter.steps) for name, tally in seen.items()}
    synops = sum(
        (torch.cat(seen[name].sums, 2)[ALL].sum(0) for name in seen if layers[name].event_driven), torch.zeros(images)
    )
    spikes = sum((torch.cat(tally.totals, 1).sum(0) for tally in meter.spikes.values()), torch.zeros(images))
    return Cost(
        synapses=tuple(layers.values()),
        neurons=tuple(_neuron_cost(name, tally) for name, tally in meter.spikes.items()),
        synops=Percentiles.of(torch.as_tensor(synops).numpy()),
        spikes=Percentiles.of(torch.as_tensor(spikes).numpy()),
        memory=memory_of(model, neurons),
        n_images=images,
        T=meter.steps,
    )


def _synapse_cost(name: str, tally: SynapseTally, steps: int) -> SynapseCost:
    sums = torch.cat(tally.sums, 2)
    seen = sums.shape[1]
    static = seen == 1 or (tally.before_neurons and bool((sums == sums[:, :1]).all()))
    macs = 0 if tally.whole else tally.dense
    zero = torch.zeros_like(sums[0])
    return SynapseCost(
        name=name,
        event_driven=tally.whole,
        synops=_over_steps(sums[ALL] if tally.whole else zero),
        synops_nonzero=_over_steps(sums[NONZERO] if tally.whole else zero),
        macs_once=macs if static else macs * steps,
        macs_every_step=macs * steps,
        events=_over_steps(sums[EVENTS]),
        events_per_step=tuple(Percentiles.of(step.numpy()) for step in sums[EVENTS]),
        density=float(sums[EVENTS].mean()) / tally.inputs,
        effective=float(sums[ACTIVE_NONZERO].mean()) / tally.dense,
        fan_in=fan_in(tally.layer),
    )


def _neuron_cost(name: str, tally: SpikeTally) -> NeuronCost:
    totals = torch.cat(tally.totals, 1)
    return NeuronCost(
        name=name,
        neurons=tally.neurons,
        spikes=_over_steps(totals),
        spikes_per_step=tuple(Percentiles.of(step.numpy()) for step in totals),
    )


def _over_steps(values: Tensor) -> Percentiles:
    """Of an image, from [r, N]."""
    return Percentiles.of(values.sum(0).numpy())
