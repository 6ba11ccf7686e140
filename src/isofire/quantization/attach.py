"""Putting quantizers on a model: all are built before the first is attached, and a failure takes off what is on."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

from torch import nn
from torch.nn.utils import parametrize

from isofire.adapters import Adapter, adapter_of, run_self_test
from isofire.convolution import guard_
from isofire.errors import ModelError
from isofire.neurons import MembraneQuantizer
from isofire.quantization.can_fire import check_can_fire
from isofire.quantization.constants import attach_biases_, round_constants_
from isofire.quantization.contract import build, try_states
from isofire.quantization.kept_levels import expect_levels_
from isofire.quantization.own_forward import check_same_in_both_modes, check_uses_its_weight
from isofire.quantization.plan import LayerAssignment, QuantPlan
from isofire.quantization.temporal import make_temporal_
from isofire.quantizers import MembraneSetting, Quantizer, Setting, WeightSetting
from isofire.running import device_of, in_common, require_finite, same_storage

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
        If a weight is not finite, is already parametrized, or lies in the memory of another; or a neuron's membrane
        cannot be quantized.
    SpecError
        If a setting does not fit its module.
    """
    require_finite(model)
    _refuse_views(model, plan)
    with ExitStack() as undo:
        # membranes are tried against the thresholds that there will be
        round_constants_(model, plan, undo)
        weights = _weight_quantizers(model, plan)
        membranes = _membranes(model, plan)
        # before weights are made by quantizers that are not calibrated yet
        for handle in guard_(model):
            undo.callback(handle.remove)
        for choice, quantizer in weights:
            layer = model.get_submodule(choice.name)
            if choice.of(WeightSetting).time_steps is not None:
                undo.callback(model.set_submodule, choice.name, layer)
                layer = make_temporal_(model, choice.name)
            undo.callback(remove_quantizer_, layer, list(layer._parameters))
            # unsafe: without torch's own trial run, which an uncalibrated quantizer refuses and a learning one counts
            parametrize.register_parametrization(layer, "weight", quantizer, unsafe=True)
        attach_membranes_(model, membranes, undo)
        attach_biases_(model, plan, undo)
        return undo.pop_all()


def remove_quantizer_(layer: nn.Module, order: Sequence[str] = ("weight",)) -> None:
    """Take the quantizer off a layer's weight, which becomes a plain parameter again, in the order in which they were.

    torch puts it behind the layer's other parameters.
    """
    if parametrize.is_parametrized(layer, "weight"):
        parametrize.remove_parametrizations(layer, "weight", leave_parametrized=False)
    own = layer._parameters
    for name in [*order, *[name for name in own if name not in order]]:
        own[name] = own.pop(name)


def attach_converted_(model: nn.Module, plan: QuantPlan) -> None:
    """The structure of a converted model, for loading one: plain weights (some with a time axis) and membranes."""
    with ExitStack() as undo:
        round_constants_(model, plan, undo)
        undo.pop_all()
    membranes = _membranes(model, plan)
    own: dict[tuple[int, Setting], nn.Parameter] = {}
    for choice in plan.chosen("weights"):
        setting, layer = choice.of(WeightSetting), model.get_submodule(choice.name)
        weight = _plain_weight(choice, layer)
        shape = weight.shape
        if setting.time_steps is not None:
            layer, shape = make_temporal_(model, choice.name), (setting.time_steps, *shape)
        # conversion gives layers that share a weight one of its own for each setting
        # values that are there stay, as those of a graph that was read
        fresh = weight.detach().clone() if shape == weight.shape else weight.new_zeros(shape)
        layer.weight = own.setdefault((id(weight), setting), nn.Parameter(fresh))
        expect_levels_(layer)
    with ExitStack() as undo:
        attach_membranes_(model, membranes, undo)
        undo.pop_all()


def attach_membranes_(model: nn.Module, membranes: Membranes, undo: ExitStack) -> None:
    """Give each neuron its quantizer."""
    for choice, membrane in membranes:
        neuron, adapter = model.get_submodule(choice.name), _adapter(model, choice.name)
        adapter.attach(neuron, membrane)
        undo.callback(adapter.detach, neuron)


def _weight_quantizers(model: nn.Module, plan: QuantPlan) -> list[tuple[LayerAssignment, Quantizer]]:
    """One for each layer; layers that share a weight and a setting share it too, and so stay equal in training."""
    made: dict[tuple[int, Setting], Quantizer] = {}
    found = []
    for choice in plan.chosen("weights"):
        layer, setting = model.get_submodule(choice.name), choice.of(WeightSetting)
        weight = _plain_weight(choice, layer)
        check_uses_its_weight(choice.name, layer)
        key = id(weight), setting
        if key not in made:
            made[key] = build(choice, lambda setting, rows=weight.shape[0]: setting.build(rows)).to(weight.device)
        found.append((choice, made[key]))
    check_same_in_both_modes(model, [choice.name for choice, _ in found])
    return found


def _refuse_views(model: nn.Module, plan: QuantPlan) -> None:
    """Raise ModelError for what is to be quantized and lies in the memory of another parameter or buffer: one number
    now, which would become two."""
    held = {id(tensor): group for group in same_storage(model) for _, tensor in group}
    for target, own in (("weights", "weight"), ("biases", "bias")):
        for choice in plan.chosen(target):
            mine = model.get_submodule(choice.name)._parameters.get(own)
            for name, other in held.get(id(mine), []):
                if mine is not None and other is not mine and in_common(mine, other):
                    raise ModelError(
                        f"the {own} of {choice.name!r} lies in the memory of {name!r} (a view of it, as of a "
                        "transpose or slice), so that both are one now, and would be two with levels of their own; "
                        f"give it numbers of its own ({own} = nn.Parameter({own}.detach().clone())), share the "
                        f"parameter itself where it is the same, or leave both float by rules (rule {choice.rule!r})"
                    )


def _plain_weight(choice: LayerAssignment, layer: nn.Module) -> nn.Parameter:
    """The layer's weight, which must be a parameter, not a value computed from others."""
    weight = layer._parameters.get("weight")
    if weight is not None:
        return weight
    name, tools = choice.name, "torch.nn.utils"
    if "weight_orig" in layer._parameters and "weight_mask" in layer._buffers:
        raise ModelError(
            f"the weight of {name!r} is pruned, so computed from others; make that lasting first with "
            f"{tools}.prune.remove(layer, 'weight'), or leave the layer float"
        )
    if parametrize.is_parametrized(layer, "weight"):
        parts = ", ".join(type(part).__name__ for part in layer.parametrizations["weight"])  # type: ignore[index]
        raise ModelError(
            f"the weight of {name!r} is already parametrized ({parts}); make that lasting first with "
            f"{tools}.parametrize.remove_parametrizations(layer, 'weight'), or leave the layer float"
        )
    if "weight" in layer._buffers:
        raise ModelError(
            f"the weight of {name!r} is a buffer, and weights are parameters; make it one (requires_grad=False keeps "
            "it from being trained), or leave the layer float"
        )
    raise ModelError(
        f"the weight of {name!r} is no parameter but computed from others, as by weight or spectral norm; make it "
        f"lasting first with {tools}.remove_weight_norm(layer) or remove_spectral_norm(layer), or leave the layer float"
    )


def _membranes(model: nn.Module, plan: QuantPlan) -> Membranes:
    return [(choice, _membrane(model, choice)) for choice in plan.chosen("membrane")]


def _membrane(model: nn.Module, choice: LayerAssignment) -> MembraneQuantizer:
    setting = choice.of(MembraneSetting)
    neuron, adapter = model.get_submodule(choice.name), _adapter(model, choice.name)
    _require_finite_threshold(choice.name, neuron, adapter)
    run_self_test(choice.name, neuron, adapter, setting.placement)
    # calibration, or the file that is loaded, knows the channels
    quantizer = build(choice, lambda _: setting.build_for(1, adapter.facts(neuron)))
    if not setting.is_estimated:
        try_states(choice, quantizer)
        check_can_fire(model, choice, quantizer)
    return MembraneQuantizer(quantizer, setting.placement).to(device_of(model))


def _require_finite_threshold(name: str, neuron: nn.Module, adapter: Adapter) -> None:
    """Raise ModelError for neurons that never fire, whose potential is read out instead."""
    if adapter.has_threshold(neuron) and not bool(adapter.threshold(neuron).isfinite().all()):
        raise ModelError(
            f"the threshold of {name!r} ({type(neuron).__name__}) is not finite, as that of a readout whose potential "
            "is the output, and levels of membranes are chosen by thresholds; leave it float by a rule, "
            f'{{match = "{name}", membrane = "float"}}'
        )


def _adapter(model: nn.Module, name: str) -> Adapter:
    adapter = adapter_of(model.get_submodule(name))
    assert adapter is not None
    return adapter
