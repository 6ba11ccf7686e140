"""How each layer of neurons of a network fires, what its membrane quantizer does to it, and what is wrong."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from isofire.adapters import Adapter, find_neurons, input_axis, no_neurons, require_kept
from isofire.batches import Data, require_count
from isofire.errors import SpecError
from isofire.quantization.by_firing.fired import firing_of
from isofire.quantization.calibration import calibration_batches
from isofire.quantization.diagnosis.fault import LEAST_SPIKES, Fault
from isofire.quantization.diagnosis.record import Diagnosis, LayerDiagnosis, span
from isofire.quantization.diagnosis.silence import unreachable, why_silent
from isofire.quantization.diagnosis.states import StateTally, counting_states
from isofire.quantization.diagnosis.thresholds import fires_from, table_of
from isofire.quantization.repair import require_same_layers
from isofire.running import evaluating, refuse_statistics_of_the_batch

IMAGES = 256
_MOVED = 0.01
"""A threshold that has moved by less, of its own size, is not spoken of."""
ROOT = "model"
"""Name of a network that is itself a layer of neurons."""


@torch.inference_mode(False)
@torch.no_grad()
def diagnose(
    quantized: nn.Module,
    data: Data | Tensor | None = None,
    baseline: nn.Module | None = None,
    *,
    max_images: int = IMAGES,
) -> Diagnosis:
    """Look for layers that do not fire, or fire otherwise than they should, and say why.

    Parameters
    ----------
    quantized
        A network, quantized or not; it is not changed.
    data
        Some images; labels are not used. Without any, only thresholds and levels are looked at.
    baseline
        Its full-precision counterpart, with the same layers of neurons. With it a layer is called silent only if it
        fires there.
    max_images
        How many of the images to use.

    Raises
    ------
    ModelError
        If the network has no spiking neuron or fails on the images, or the baseline has other layers of neurons.
    SpecError
        If there is a baseline and no data.

    Examples
    --------
    >>> print(isofire.quantization.diagnose(quantized, test_set, baseline=model))  # doctest: +SKIP
    """
    require_count("max_images", max_images)
    neurons = find_neurons(quantized)
    if not neurons:
        raise no_neurons(quantized)
    if data is None:
        if baseline is not None:
            raise SpecError("a baseline is compared on images; pass data too")
        layers = tuple(_static(name, *found) for name, found in neurons.items())
        return Diagnosis(layers=layers, n_images=0, T=0)
    with evaluating(quantized):
        refuse_statistics_of_the_batch(quantized)
    batches = list(calibration_batches(quantized, data, max_images))
    with counting_states(quantized) as tallies:
        fired = firing_of(quantized, batches)
    targets: Mapping[str, Tensor] | None = None
    if baseline is not None:
        require_kept((baseline, quantized))
        targets = firing_of(baseline, batches).counts
        require_same_layers(targets, fired.counts)
    silent = _silent(quantized, fired.counts, targets, batches)
    layers = []
    for name, found in neurons.items():
        static = _static(name, *found)
        if name not in fired.counts:
            layers.append(replace(static, faults=(*static.faults, _uncalled(static.layer))))
            continue
        target = None if targets is None else targets[name]
        layers.append(_seen(static, fired.counts[name], fired.samples[name], target, tallies.get(name), silent))
    images = sum(batch.shape[input_axis(quantized, batch)] for batch in batches)
    return Diagnosis(layers=tuple(layers), n_images=images, T=max(fired.samples.values()) // images)


def _static(name: str, neuron: nn.Module, adapter: Adapter) -> LayerDiagnosis:
    """What levels and thresholds alone tell."""
    if not adapter.has_threshold(neuron):
        return LayerDiagnosis(layer=name or ROOT, placement=None, faults=(_without_threshold(name or ROOT, neuron),))
    membrane, threshold = adapter.membrane(neuron), adapter.threshold(neuron).detach().double().cpu()
    starts = fires_from(membrane, threshold, adapter)
    layer = LayerDiagnosis(
        layer=name or ROOT,
        placement=None if membrane is None else membrane.placement,
        threshold=(float(threshold.min()), float(threshold.max())),
        fires_from=(float(starts.min()), float(starts.max())),
        levels=None if membrane is None else table_of(membrane).levels.shape[1],
    )
    if membrane is None or membrane.placement == "post_reset":
        return layer
    never = unreachable(layer.layer, membrane, neuron, adapter)
    return replace(layer, faults=tuple(filter(None, [never, _moved(layer, starts)])))


def _moved(layer: LayerDiagnosis, starts: Tensor) -> Fault | None:
    """A threshold that is not where it was; None where it is, or never reached."""
    if bool((starts == -math.inf).any()):
        found = "a neuron fires at every step, whatever it is given: at pre_fire its lowest level reaches the threshold"
        cure = "move the levels so that one lies below the threshold, or use placement 'post_reset'"
        return Fault(layer=layer.layer, state="broken", found=found, cure=cure)
    assert layer.threshold is not None
    reached = starts[starts.isfinite()]
    low, high = layer.threshold
    if not len(reached) or (reached.min() - low).abs() <= _MOVED * abs(low) >= (reached.max() - high).abs():
        return None
    found = f"it fires from {span((float(reached.min()), float(reached.max())))} on, not from {span(layer.threshold)}"
    cure = (
        "at pre_fire a level is compared in place of the potential; methods 'firing' and 'anchored' put an edge of a "
        "bin at the threshold, placement 'post_reset' compares the potential"
    )
    return Fault(layer=layer.layer, state="note", found=found, cure=cure)


def _seen(
    layer: LayerDiagnosis,
    counts: Tensor,
    samples: int,
    target: Tensor | None,
    tally: StateTally | None,
    silent: Mapping[str, Fault],
) -> LayerDiagnosis:
    """What the images tell besides."""
    faults = list(layer.faults)
    if (fault := silent.get(layer.layer)) is not None:
        # that no level reaches the threshold is said once
        faults = [fault, *(item for item in faults if item.found != fault.found)]
    gone = 0 if target is None else int(((counts.sum(1) == 0) & (target.sum(1) >= LEAST_SPIKES)).sum())
    if gone and fault is None:
        faults.append(
            Fault(
                layer=layer.layer, state="note",
                found=f"{gone} of {len(counts)} channels do not fire, though they do in full precision",
                cure="isofire.quantization.repair_ brings channels back",
            )
        )  # fmt: skip
    known = tally is not None and tally.states > 0
    return replace(
        layer,
        levels_used=tally.levels_used if tally is not None and known else None,
        below=tally.below / tally.states if tally is not None and known else None,
        above=tally.above / tally.states if tally is not None and known else None,
        neurons=counts.numel(),
        rate=float(counts.double().mean()) / samples,
        rate_baseline=None if target is None else float(target.double().mean()) / samples,
        dead=float((counts == 0).double().mean()),
        dead_baseline=None if target is None else float((target == 0).double().mean()),
        silent_channels=None if target is None else gone,
        faults=tuple(faults),
    )


def _silent(
    model: nn.Module, counts: Mapping[str, Tensor], targets: Mapping[str, Tensor] | None, batches: Sequence[Tensor]
) -> dict[str, Fault]:
    """Why layers do not fire that should."""
    names = [
        name
        for name, found in counts.items()
        if not bool(found.any()) and (targets is None or int(targets[name].sum()) >= LEAST_SPIKES)
    ]
    found = why_silent(model, names, batches) if names else []
    return {fault.layer or ROOT: replace(fault, layer=fault.layer or ROOT) for fault in found}


def _without_threshold(layer: str, neuron: nn.Module) -> Fault:
    found = f"{type(neuron).__name__} has no threshold, and no levels: how often it fires is all that is looked at"
    return Fault(layer=layer, state="note", found=found, cure="nothing to do")


def _uncalled(layer: str) -> Fault:
    return Fault(
        layer=layer, state="note", found="it is not called in a forward pass", cure="nothing to do if that is meant"
    )
