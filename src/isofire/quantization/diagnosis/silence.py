"""Why a layer of neurons does not fire: found by running it again without what may be to blame."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from contextlib import ExitStack

import torch
from torch import Tensor, nn

from isofire.adapters import Adapter, Layout, find_neurons
from isofire.neurons import MembraneQuantizer, Neuron
from isofire.quantization.by_firing.replay import Replay
from isofire.quantization.by_firing.trace import calls_of, trace
from isofire.quantization.diagnosis.fault import Fault
from isofire.quantization.diagnosis.thresholds import fires_from, table_of
from isofire.quantizers import RangeObserver, Uniform
from isofire.running import evaluating

CURE_OF_WEIGHTS = (
    'correct = "bias" or isofire.quantization.repair_ brings its currents back, or give the weights before it more bits'
)
_CURE_OF_LEVELS = 'give it more bits or another range, choose its levels by method "firing"'


def why_silent(
    model: nn.Module, names: Sequence[str], batches: Sequence[Tensor], *, cure: str = CURE_OF_WEIGHTS
) -> list[Fault]:
    """Why these layers do not fire on these inputs, in the order in which the network runs them.

    A layer is run again on what the network gives it, without its membrane quantizer: if it fires then, the quantizer
    is the reason; if not, what it is given.

    Parameters
    ----------
    names
        Layers without a spike.
    batches
        The inputs.
    cure
        What to do where currents are too weak.
    """
    found: list[Fault] = []
    # a norm that a neuron applies itself would else be measured
    with evaluating(model):
        neurons, seen = find_neurons(model), trace(model, batches, ())
        for name in (name for name in seen.order if name in names):
            neuron, adapter = neurons[name]
            replay = Replay(neuron, adapter, calls_of(model, name, batches, seen.calls[name]))
            found.append(reason(name, replay, [fault.layer for fault in found], cure=cure))
    return found


@torch.no_grad()
def reason(name: str, replay: Replay, silent_before: Collection[str], *, cure: str = CURE_OF_WEIGHTS) -> Fault:
    """Why the replayed layer, which carries its membrane quantizer, does not fire.

    Parameters
    ----------
    silent_before
        Layers that are silent too and run earlier.
    """
    neuron, adapter = replay.neuron, replay.adapter
    if bool(replay.counts().any()):
        found = "no neuron fires on a training batch, though some do in evaluation mode, with the norms' own statistics"
        return Fault(layer=name, state="broken", found=found, cure="take larger batches, or freeze the norms")
    membrane = adapter.membrane(neuron)
    if membrane is not None:
        adapter.detach(neuron)
    try:
        spikes, highest = _in_full_precision(replay)
    finally:
        if membrane is not None:
            adapter.attach(neuron, membrane)
    if spikes and membrane is not None:
        return _of_membrane(name, membrane, neuron, adapter)
    if silent_before and _says_nothing(replay):
        found = f"no neuron fires: nothing arrives, since {', '.join(silent_before)} before it is silent"
        return Fault(layer=name, state="broken", found=found, cure="mend that layer first")
    reached = ""
    if highest is not None:
        threshold = float(adapter.threshold(neuron).min())
        reached = f", the highest potential is {highest:.3g} of a threshold of {threshold:.3g}"
    return Fault(layer=name, state="broken", found=f"no neuron fires: its currents are too weak{reached}", cure=cure)


def unreachable(name: str, membrane: MembraneQuantizer, neuron: nn.Module, adapter: Adapter) -> Fault | None:
    """The fault of levels of which none, of some or all channels, reaches the threshold; None if all do."""
    starts = fires_from(membrane, adapter.threshold(neuron), adapter)
    never = (starts == math.inf).all(1)
    if not bool(never.any()):
        return None
    top = float(table_of(membrane).levels[:, -1].max())
    threshold = float(adapter.threshold(neuron).min())
    cure = "widen the range so that a level reaches the threshold, or use placement 'post_reset'"
    if bool(never.all()):
        found = f"no neuron can fire: at pre_fire the highest level is {top:.3g}, the threshold {threshold:.3g}"
        return Fault(layer=name, state="broken", found=found, cure=cure)
    found = (
        f"{int(never.sum())} of {len(never)} channels cannot fire: at pre_fire no level of theirs reaches the threshold"
    )
    return Fault(layer=name, state="note", found=found, cure=cure)


def _of_membrane(name: str, membrane: MembraneQuantizer, neuron: nn.Module, adapter: Adapter) -> Fault:
    """The fault of a membrane quantizer without which the layer fires."""
    if (fault := unreachable(name, membrane, neuron, adapter)) is not None and fault.state == "broken":
        return fault
    levels = table_of(membrane).levels
    shown = f"{levels.shape[1]} levels from {float(levels.min()):.3g} to {float(levels.max()):.3g}"
    if membrane.placement == "pre_fire":
        start = float(fires_from(membrane, adapter.threshold(neuron), adapter).min())
        found = f"no neuron fires because of its membrane quantizer (pre_fire, {shown}): it fires from {start:.3g} on"
        return Fault(layer=name, state="broken", found=found, cure=f"{_CURE_OF_LEVELS}, or use placement 'post_reset'")
    found = (
        f"no neuron fires because of its membrane quantizer (post_reset, {shown}): what is stored from step to step is "
        "rounded so that it does not add up to the threshold"
    )
    return Fault(layer=name, state="broken", found=found, cure=_CURE_OF_LEVELS)


def _in_full_precision(replay: Replay) -> tuple[int, float | None]:
    """Spikes of the layer, which carries no membrane quantizer, and the highest potential before it fires: None where
    the library does not show it there."""
    neuron, adapter = replay.neuron, replay.adapter
    if adapter.refusal(neuron, "pre_fire") is not None:
        return int(replay.counts().sum()), None
    probe = MembraneQuantizer(Uniform(8), "pre_fire").to(replay.batches[replay.reached][0].input.device)
    probe.observer = RangeObserver()
    with ExitStack() as undo:
        adapter.attach(neuron, probe)
        undo.callback(adapter.detach, neuron)
        if isinstance(neuron, Neuron):
            undo.callback(setattr, neuron, "backend", neuron.backend)
            neuron.backend = "auto"
        spikes = int(replay.counts().sum())
    return spikes, float(probe.observer.extremes()[:, 1].max())


def _says_nothing(replay: Replay) -> bool:
    """Whether every image gives the layer the same currents, in all calls."""
    axis = 0 if replay.adapter.layout(replay.neuron) is Layout.BATCH_FIRST else replay.channel_axis - 1
    firsts = [call.input.narrow(axis, 0, 1) for call in replay.batches[replay.reached]]
    return all(
        bool((call.input == first).all())
        for calls in replay.batches
        for call, first in zip(calls, firsts, strict=False)
    )
