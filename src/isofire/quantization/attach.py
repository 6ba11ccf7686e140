"""Putting quantizers on a model: all are built before the first is attached, so that a failure changes nothing."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from isofire.adapters import Adapter, adapter_of, run_self_test
from isofire.errors import ModelError, SpecError
from isofire.neurons import MembraneQuantizer
from isofire.quantization.plan import LayerAssignment, QuantPlan
from isofire.quantization.temporal import check_temporal, make_temporal_
from isofire.quantizers import Quantizer
from isofire.running import device_of, require_finite
from isofire.settings import TaWQWeights, UniformMembrane, WeightSetting


def attach_(model: nn.Module, plan: QuantPlan) -> None:
    """Attach uncalibrated quantizers to weights (as parametrizations) and neurons.

    Raises
    ------
    ModelError
        If a weight is not finite or is already parametrized, or a neuron's membrane cannot be quantized.
    SpecError
        If a setting does not fit its module.
    """
    require_finite(model)
    weights = [(choice, _weight_quantizer(model, choice)) for choice in _chosen(plan, "weights")]
    membranes = [(choice, _membrane(model, choice)) for choice in _chosen(plan, "membrane")]
    for choice, quantizer in weights:
        layer = model.get_submodule(choice.name)
        if isinstance(choice.setting, TaWQWeights):
            layer = make_temporal_(model, choice.name)
        # unsafe: without torch's own trial run, which an uncalibrated quantizer refuses and a learning one counts
        parametrize.register_parametrization(layer, "weight", quantizer, unsafe=True)
    attach_membranes_(model, membranes)


def attach_converted_(model: nn.Module, plan: QuantPlan) -> None:
    """The structure of a converted model, for loading one: plain weights (TaWQ's with a time axis) and membranes."""
    membranes = [(choice, _membrane(model, choice)) for choice in _chosen(plan, "membrane")]
    for choice in _chosen(plan, "weights"):
        if isinstance(choice.setting, TaWQWeights):
            check_temporal(model, choice.name)
            layer = make_temporal_(model, choice.name)
            shape = (choice.setting.steps, *layer.weight.shape)
            layer.weight = nn.Parameter(torch.zeros(shape, device=layer.weight.device, dtype=layer.weight.dtype))
    attach_membranes_(model, membranes)


def attach_membranes_(model: nn.Module, membranes: list[tuple[LayerAssignment, MembraneQuantizer]]) -> None:
    """Give each neuron its quantizer."""
    for choice, membrane in membranes:
        _adapter(model, choice.name).attach(model.get_submodule(choice.name), membrane)


def _chosen(plan: QuantPlan, target: str) -> list[LayerAssignment]:
    return [choice for choice in plan.choices if choice.target == target and choice.setting is not None]


def _weight_quantizer(model: nn.Module, choice: LayerAssignment) -> Quantizer:
    layer = model.get_submodule(choice.name)
    weight = layer._parameters.get("weight")
    if not isinstance(weight, Tensor):
        raise ModelError(
            f"the weight of {choice.name!r} is already parametrized (quantized, or weight or spectral norm); "
            "remove that first, or leave the layer float"
        )
    setting = choice.setting
    assert isinstance(setting, WeightSetting)
    if isinstance(setting, TaWQWeights):
        check_temporal(model, choice.name)
    return setting.build(weight.shape[0]).to(weight.device)


def _membrane(model: nn.Module, choice: LayerAssignment) -> MembraneQuantizer:
    setting = choice.setting
    assert isinstance(setting, UniformMembrane)
    per_channel = setting.granularity == "channel" and setting.is_estimated
    quantizer = setting.build(_channels_before(model, choice.name) if per_channel else 1)
    neuron, adapter = model.get_submodule(choice.name), _adapter(model, choice.name)
    run_self_test(choice.name, neuron, adapter, setting.placement)
    if setting.placement == "pre_fire" and not setting.is_estimated:
        _check_can_fire(choice, float(quantizer.levels().max()), float(adapter.threshold(neuron).max()), adapter)
    return MembraneQuantizer(quantizer, setting.placement).to(device_of(model))


def _adapter(model: nn.Module, name: str) -> Adapter:
    adapter = adapter_of(model.get_submodule(name))
    assert adapter is not None
    return adapter


def _check_can_fire(choice: LayerAssignment, top: float, threshold: float, adapter: Adapter) -> None:
    # a threshold such as 0.1 has no float32 of its own
    equal = math.isclose(top, threshold, rel_tol=1e-6)
    if (equal and not adapter.fires_at_threshold) or (top < threshold and not equal):
        where = "is no higher than" if equal else "lies below"
        raise SpecError(
            f"{choice.name!r} could never fire: at pre_fire the highest level, {top:g}, {where} its threshold, "
            f"{threshold:g}{', which it must exceed' if equal else ''} (rule {choice.rule!r}); widen the range, "
            "or use placement 'post_reset'"
        )


def _channels_before(model: nn.Module, name: str) -> int:
    """Channels of a layer of neurons: those of the last layer or norm defined before it; calibration corrects them."""
    channels = None
    for other, module in model.named_modules():
        if other == name:
            break
        for attribute in ("num_features", "out_channels", "out_features"):
            channels = getattr(module, attribute, channels)
    if not isinstance(channels, int):
        raise SpecError(f"cannot tell the channels of neuron {name!r}; use granularity 'tensor' for it")
    return channels
