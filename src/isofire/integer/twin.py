"""Float networks that make a chip's changes: some of them, or all."""

from __future__ import annotations

import copy
import math
from collections.abc import Collection
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from isofire.integer.chip_layer import ChipLayer
from isofire.integer.mapping import ChipMapping, charge_of, floor_of
from isofire.integer.neuron_form import NeuronForm
from isofire.integer.stages import Stage
from isofire.neurons import Recurrent
from isofire.quantization import convert, is_converted, spec_of
from isofire.quantization.on_levels import leave_levels_, require_levels

FLOAT_STEPS = ("weights", "decays", "thresholds", "biases", "synapse", "reset", "spikes", "floor")
"""Changes that a float network can make too. What is left are biases that act early, and the states."""
_NEVER = 1e-30
"""A share of a current that is kept, in place of 0: thresholds divided by it are never reached."""


def with_changes(
    model: nn.Module, mapping: ChipMapping, changes: Collection[str] | Collection[tuple[str, str]]
) -> nn.Module:
    """A copy of the float network in which some changes of a mapping are made, and no others.

    `changes`: names, of all layers, or pairs of a layer of neurons and a name. A layer whose states are whole numbers
    on the chip, and in which all is changed that the chip changes, has the chip's numbers times a power of two: a
    membrane that reaches its threshold exactly does so here too, which rounded numbers leave to chance.
    """
    twin = twin_of(plain(model))
    for layer in mapping.layers:
        names = {c if isinstance(c, str) else c[1] for c in changes if isinstance(c, str) or c[0] == layer.name}
        if (rules := _whole_rules(layer, mapping)) and rules <= names:
            bias, form = _make_whole(twin, layer, mapping)
            _settle(twin, layer, bias, form)
            continue
        weighted = twin.get_submodule(layer.stage.layer_name)
        if "weights" in names:
            _set_weights(weighted, layer)
            if layer.back_codes is not None:
                _set_back(twin.get_submodule(layer.name), layer, layer.back_codes)
        form = _form(layer, mapping, names)
        if form is not None:
            old: Any = twin.get_submodule(layer.name)
            made = form.neuron()
            twin.set_submodule(layer.name, made if layer.back is None else Recurrent(made, old.weight))
        if "biases" in names:
            changed = _shift_bias(twin, layer)
            _settle(twin, layer, changed, layer.neuron.exact if form is None else form)
    return twin


def twin_of(model: nn.Module) -> nn.Module:
    """A copy to be changed on purpose, which may run off the levels of its spec."""
    twin = copy.deepcopy(model).eval()
    leave_levels_(twin)
    return twin


def plain(model: nn.Module) -> nn.Module:
    """The network with the values of its levels as weights."""
    require_levels(model)
    return convert(model) if spec_of(model) is not None and not is_converted(model) else model


def _whole_rules(layer: ChipLayer, mapping: ChipMapping) -> set[str]:
    """The changes that make a layer the chip's; none where a float network does not have the chip's numbers."""
    form, pools = layer.neuron.changed, layer.stage.pools
    held = not form.leaks and not form.has_synapse and layer.stage.scale is None
    floor = floor_of(mapping.spec, layer)
    held = held and (floor is None or floor.unique().numel() == 1)
    if not held or any(pool.factor is None or math.frexp(pool.factor)[0] != 0.5 for pool in pools):
        return set()
    names = (layer.name, layer.stage.layer_name)
    return {r.rule for r in mapping.refusals if r.layer in names and r.rule in FLOAT_STEPS}


def _make_whole(twin: nn.Module, layer: ChipLayer, mapping: ChipMapping) -> tuple[Tensor, NeuronForm]:
    """Give a layer the chip's weights, biases, threshold and floor, times a power of two: float32 holds them.

    Gives what it adds [out], and what its neurons are.
    """
    stage, spec = layer.stage, mapping.spec
    unit = 2.0 ** -round(math.log2(float(layer.unit.min())))
    pooled = math.prod(pool.factor or 1.0 for pool in stage.pools)
    weighted: Any = twin.get_submodule(stage.layer_name)
    weighted.weight = nn.Parameter((layer.codes * (2.0**layer.shift * unit / pooled)).to(weighted.weight))
    bias = (layer.biases * unit).expand(layer.shape).reshape(len(layer.codes), -1)[:, 0].to(weighted.weight)
    if stage.norm_name is None:
        weighted.bias = nn.Parameter(bias)
    else:
        _make_identity(twin.get_submodule(stage.norm_name), bias)
        weighted.bias = None
    rules = spec.neuron
    threshold = (layer.threshold << rules.threshold_shift) + int(rules.compare == ">")
    floor = floor_of(spec, layer)
    form = replace(
        layer.neuron.changed, decay_input=False, rest=0.0, threshold=threshold * unit, above=False,
        floor=None if floor is None else float(floor.flatten()[0]) * unit,
    )  # fmt: skip
    made: Any = _as_late(form, layer).neuron()
    if layer.back_codes is not None:
        back = cast(Any, twin.get_submodule(layer.name)).weight
        back.weight = nn.Parameter((layer.back_codes * (2.0**layer.shift * unit)).to(back.weight))
        back.bias = None
        made = Recurrent(made, back)
    twin.set_submodule(layer.name, made)
    return bias, form


def _make_identity(norm: Any, bias: Tensor) -> None:
    """A batch norm that adds, and changes nothing else."""
    norm.eps = 0.0
    norm.running_var = torch.ones_like(norm.running_var)
    norm.running_mean = torch.zeros_like(norm.running_mean) if norm.affine else -bias
    if norm.affine:
        norm.weight, norm.bias = nn.Parameter(torch.ones_like(norm.weight)), nn.Parameter(bias)


def _set_weights(weighted: Any, layer: ChipLayer) -> None:
    wide = (-1, *(1,) * (layer.weight.ndim - 1))
    folded = layer.codes.double() * (2.0**layer.shift * layer.gain / layer.unit).view(wide)
    slope = layer.slope.view(wide)
    own = weighted.weight.detach().double().cpu()
    # a channel that the batch norm multiplies by 0 keeps its weights
    rounded = torch.where(slope == 0, own, folded / torch.where(slope == 0, torch.ones_like(slope), slope))
    weighted.weight = nn.Parameter(rounded.to(weighted.weight))


def _set_back(recurrent: Any, layer: ChipLayer, codes: Tensor) -> None:
    value = codes.double() * (2.0**layer.shift * layer.gain / layer.unit).view(-1, 1)
    recurrent.weight.weight = nn.Parameter(value.to(recurrent.weight.weight))


def _shift_bias(twin: nn.Module, layer: ChipLayer) -> Tensor:
    """Change what the layer adds by as much as the chip's rounding does; gives what it adds then [out]."""
    wanted = layer.steady() * layer.per_neuron(layer.unit)
    steady = layer.neuron.changed.synapse_gain if layer.neuron.changed.has_synapse else torch.ones(())
    changed = (layer.biases - wanted) / (steady * layer.per_neuron(layer.unit)) * layer.per_neuron(layer.gain)
    by = changed.expand(layer.shape).reshape(len(layer.weight), -1).mean(1)
    shift_bias(twin, layer.stage, by)
    return layer.bias * layer.gain + by


def _settle(twin: nn.Module, layer: ChipLayer, bias: Tensor, form: NeuronForm) -> None:
    """Let a constant `bias` [out] act when the chip's does: not before the step that the chip counts as its first, and
    where it is added behind the current with all that it leads to in time, I = bias * tau, from there on."""
    late = max(0, -(layer.latency + layer.neuron.early))
    behind = layer.neuron.changed.has_synapse and form.has_synapse
    if not (behind or late) or not bool((bias != 0).any()):
        return
    each = layer.per_neuron(bias)
    # of the current each step loses what the bias adds
    first = each * (form.tau_synapse - 1.0) if behind else torch.zeros_like(each)

    def settled(_: nn.Module, args: Any, kwargs: Any) -> tuple[Any, Any]:
        x = charge_of(args, kwargs)
        now = slice(late, late + 1)
        return (torch.cat([x[:late] - each.to(x), x[now] + first.to(x), x[late + 1 :]]),), {}

    twin.get_submodule(layer.name).register_forward_pre_hook(settled, with_kwargs=True)


def shift_bias(twin: nn.Module, stage: Stage, change: Tensor) -> None:
    """Change what a stage adds to its outputs, in place, by `change` [out]."""
    if stage.scale is not None:
        change = torch.where(stage.scale == 0, 0.0, change / stage.scale)
    found: Any = None if stage.norm_name is None else twin.get_submodule(stage.norm_name)
    weighted: Any = twin.get_submodule(stage.layer_name)
    if found is None:
        if weighted.bias is None and stage.back is not None:
            weighted = cast(Any, twin.get_submodule(stage.target)).weight
        if weighted.bias is not None:
            weighted.bias = nn.Parameter((weighted.bias.detach().double() + change).to(weighted.bias))
        return
    if found.bias is not None:
        found.bias = nn.Parameter((found.bias.detach().double() + change).to(found.bias))
    else:
        assert found.running_mean is not None
        found.running_mean -= (change * (found.running_var.double() + found.eps).sqrt()).to(found.running_mean)


def _form(layer: ChipLayer, mapping: ChipMapping, names: Collection[str]) -> NeuronForm | None:
    """The layer's neurons with the named changes; None if they are as they were."""
    before, after = layer.neuron.exact, layer.neuron.changed
    form = before
    if "decays" in names:
        form = replace(form.scaled(layer.neuron.correction), tau=after.tau)
        if before.has_synapse and after.has_synapse:
            form = replace(form, tau_synapse=after.tau_synapse)
    if "synapse" in names and before.has_synapse != after.has_synapse:
        form = form.scaled(1.0 / before.synapse_gain) if before.has_synapse else form
        form = replace(form, synapse=after.synapse, tau_synapse=after.tau_synapse)
    if "reset" in names and (before.soft != after.soft or before.subtract is not None):
        form = replace(form, soft=after.soft, several=form.several and after.soft, subtract=None)
    if "spikes" in names and form.soft:
        # several spikes a step can only subtract the threshold each
        form = replace(form, several=after.several, subtract=None if after.several else form.subtract)
    if "floor" in names:
        form = replace(form, floor=after.floor)
    if "thresholds" in names:
        unit = layer.thresholds() * layer.per_neuron(layer.unit)
        form = replace(form, threshold=form.threshold * layer.effective_threshold(mapping.spec) / unit)
    return None if form is before else _as_late(form, layer)


def _as_late(form: NeuronForm, layer: ChipLayer) -> NeuronForm:
    """What the chip's neuron does, in the steps in which the float network's does it.

    Where that uses a current a step later, the chip's neurons fire a step earlier, of which its delays make up.
    """
    if not layer.neuron.early or form.synapse == "before_input":
        return form
    if form.synapse == "after_decay":
        kept = (1.0 - 1.0 / form.tau_synapse).clamp(min=_NEVER)
        floor = None if form.floor is None else form.floor / float(kept.flatten()[0])
        form = replace(form.scaled(1.0 / kept), floor=floor)
    return replace(form, synapse="before_input")
