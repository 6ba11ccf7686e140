"""Putting quantizers on a model: all are built before the first is attached, and a failure takes off what is on."""

from __future__ import annotations

import logging
import math
from contextlib import ExitStack

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from isofire.adapters import Adapter, adapter_of, run_self_test
from isofire.convolution import guard_
from isofire.errors import ModelError, SpecError
from isofire.neurons import MembraneQuantizer
from isofire.quantization.plan import LayerAssignment, QuantPlan
from isofire.quantization.temporal import check_temporal, make_temporal_
from isofire.quantizers import MembraneSetting, Quantizer, WeightSetting
from isofire.running import device_of, require_finite

_LOG = logging.getLogger(__name__)

Membranes = list[tuple[LayerAssignment, MembraneQuantizer]]


def attach_(model: nn.Module, plan: QuantPlan) -> ExitStack:
    """Attach uncalibrated quantizers to weights (as parametrizations) and neurons.

    Returns
    -------
    ExitStack
        Closing it takes all of them off again.

    Raises
    ------
    ModelError
        If a weight is not finite or is already parametrized, or a neuron's membrane cannot be quantized.
    SpecError
        If a setting does not fit its module.
    """
    require_finite(model)
    weights = [(choice, _weight_quantizer(model, choice)) for choice in plan.chosen("weights")]
    membranes = _membranes(model, plan)
    with ExitStack() as undo:
        # before weights are made by quantizers that are not calibrated yet
        for handle in guard_(model):
            undo.callback(handle.remove)
        for choice, quantizer in weights:
            layer = model.get_submodule(choice.name)
            if _weights_of(choice).time_steps is not None:
                undo.callback(model.set_submodule, choice.name, layer)
                layer = make_temporal_(model, choice.name)
            # unsafe: without torch's own trial run, which an uncalibrated quantizer refuses and a learning one counts
            parametrize.register_parametrization(layer, "weight", quantizer, unsafe=True)
            undo.callback(parametrize.remove_parametrizations, layer, "weight", leave_parametrized=False)
        attach_membranes_(model, membranes, undo)
        return undo.pop_all()


def attach_converted_(model: nn.Module, plan: QuantPlan) -> None:
    """The structure of a converted model, for loading one: plain weights (some with a time axis) and membranes."""
    membranes = _membranes(model, plan)
    for choice in plan.chosen("weights"):
        steps = _weights_of(choice).time_steps
        if steps is not None:
            check_temporal(model, choice.name)
            layer = make_temporal_(model, choice.name)
            shape = (steps, *layer.weight.shape)
            layer.weight = nn.Parameter(torch.zeros(shape, device=layer.weight.device, dtype=layer.weight.dtype))
    with ExitStack() as undo:
        attach_membranes_(model, membranes, undo)
        undo.pop_all()


def attach_membranes_(model: nn.Module, membranes: Membranes, undo: ExitStack) -> None:
    """Give each neuron its quantizer."""
    for choice, membrane in membranes:
        neuron, adapter = model.get_submodule(choice.name), _adapter(model, choice.name)
        adapter.attach(neuron, membrane)
        undo.callback(adapter.detach, neuron)


def check_can_fire(
    model: nn.Module, choice: LayerAssignment, quantizer: Quantizer, largest: Tensor | None = None
) -> None:
    """Raise SpecError if at `pre_fire` no level reaches the threshold, so that the neurons could never fire; log it if
    that holds for some channels only.

    Parameters
    ----------
    largest
        Largest full-precision state of each group: a group that does not fire by itself is no fault of its levels.
    """
    setting = choice.setting
    assert isinstance(setting, MembraneSetting)
    if setting.placement != "pre_fire":
        return
    adapter = _adapter(model, choice.name)
    threshold = float(adapter.threshold(model.get_submodule(choice.name)).max())
    tops = quantizer.levels().amax(1).tolist()
    fired = [True] * len(tops) if largest is None else [_fires(v, threshold, adapter) for v in largest.tolist()]
    silenced = [top for top, did in zip(tops, fired, strict=True) if did and not _fires(top, threshold, adapter)]
    if not silenced:
        return
    if len(silenced) < sum(fired):
        text = "%s: %d of %d channels can no longer fire: at pre_fire their highest level lies below the threshold"
        _LOG.warning(text, choice.name, len(silenced), len(tops))
        return
    equal = math.isclose(silenced[0], threshold, rel_tol=1e-6)
    relation = "is no higher than" if equal else "lies below"
    cure = "take another rule for the range" if setting.is_estimated else "widen the range"
    raise SpecError(
        f"{choice.name!r} could never fire: at pre_fire the highest level, {silenced[0]:g}, {relation} its threshold, "
        f"{threshold:g}{', which it must exceed' if equal else ''} (rule {choice.rule!r}); {cure}, or use placement "
        "'post_reset'"
    )


def _fires(membrane: float, threshold: float, adapter: Adapter) -> bool:
    # a threshold such as 0.1 has no float32 of its own
    if math.isclose(membrane, threshold, rel_tol=1e-6):
        return adapter.fires_at_threshold
    return membrane > threshold


def _weights_of(choice: LayerAssignment) -> WeightSetting:
    assert isinstance(choice.setting, WeightSetting)
    return choice.setting


def _weight_quantizer(model: nn.Module, choice: LayerAssignment) -> Quantizer:
    layer, setting = model.get_submodule(choice.name), _weights_of(choice)
    weight = layer._parameters.get("weight")
    if not isinstance(weight, Tensor):
        raise ModelError(
            f"the weight of {choice.name!r} is already parametrized (quantized, or weight or spectral norm); "
            "remove that first, or leave the layer float"
        )
    if setting.time_steps is not None:
        check_temporal(model, choice.name)
    return setting.build(weight.shape[0]).to(weight.device)


def _membranes(model: nn.Module, plan: QuantPlan) -> Membranes:
    return [(choice, _membrane(model, choice)) for choice in plan.chosen("membrane")]


def _membrane(model: nn.Module, choice: LayerAssignment) -> MembraneQuantizer:
    setting = choice.setting
    assert isinstance(setting, MembraneSetting)
    # calibration, or the file that is loaded, knows the channels
    quantizer = setting.build(1)
    run_self_test(choice.name, model.get_submodule(choice.name), _adapter(model, choice.name), setting.placement)
    if not setting.is_estimated:
        check_can_fire(model, choice, quantizer)
    return MembraneQuantizer(quantizer, setting.placement).to(device_of(model))


def _adapter(model: nn.Module, name: str) -> Adapter:
    adapter = adapter_of(model.get_submodule(name))
    assert adapter is not None
    return adapter
