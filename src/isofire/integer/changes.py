"""What integers do otherwise than the float network, one layer and rounding at a time, and float networks that do it.

A chip's changes are those of its mapping. Integers of the network's own round inputs and weights in full precision,
decays that are no binary fractions, thresholds and biases; what a float32 holds counts as exact.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from isofire.errors import ModelError, SpecError
from isofire.integer.builder import folded
from isofire.integer.connection import INPUT, Connection
from isofire.integer.network import IntegerNetwork
from isofire.integer.neuron_form import NeuronForm
from isofire.integer.population import Population
from isofire.integer.stages import Stage, stages_of
from isofire.integer.twin import FLOAT_STEPS, plain, shift_bias, twin_of, with_changes
from isofire.neurons import Neuron, Recurrent
from isofire.quantization import spec_of
from isofire.quantizers.lattice import Codes

_FLOAT32 = 2.0**-22
"""Relative differences up to this are float32's own."""
Edit = Callable[[nn.Module], None]


class Change(NamedTuple):
    """One rounding: of which layer of weights or neurons, and a name of `FLOAT_STEPS`, or "inputs"."""

    layer: str
    kind: str


class Changes:
    """All changes of an integer network that a float network can make too, in the order of its layers.

    Raises
    ------
    SpecError
        If the integers are a chip's and were read from a file, which does not hold what was changed.
    ModelError
        If they were lowered from another network.
    """

    def __init__(self, model: nn.Module, network: IntegerNetwork) -> None:
        self.model, self.network = plain(model), network
        if spec_of(self.model) != spec_of(network):
            said = (
                "in full precision" if spec is None else "a quantized one" for spec in map(spec_of, (model, network))
            )
            raise ModelError(
                "what integers change is measured against the network that they were lowered from; this one is {}, "
                "theirs was {}".format(*said)
            )
        self._neurons: dict[Change, str] = {}
        self._edits: dict[Change, Edit] = {}
        if network.mapping is not None:
            for refusal in network.mapping.refusals:
                for layer in network.mapping.layers:
                    if refusal.rule in FLOAT_STEPS and refusal.layer in (layer.name, layer.stage.layer_name):
                        self._neurons[Change(refusal.layer, refusal.rule)] = layer.name
        else:
            _require_own(network)
            self._edits = dict(_edits(self.model, network))

    @property
    def all(self) -> tuple[Change, ...]:
        """Every change."""
        return (*self._neurons, *self._edits)

    def make(self, changes: Collection[Change]) -> nn.Module:
        """The float network in which these are made, and no others."""
        mapping = self.network.mapping
        if mapping is not None:
            return with_changes(self.model, mapping, [(self._neurons[change], change.kind) for change in changes])
        twin = twin_of(self.model)
        for change, edit in self._edits.items():
            if change in changes:
                edit(twin)
        return twin


def _require_own(network: IntegerNetwork) -> None:
    for name, part in network.populations.items():
        decays = (rule for rule in (part.rules.decay, part.rules.synapse_decay) if rule is not None)
        own = part.rules.compare == ">=" and not part.rules.threshold_shift and not network.latency[name]
        if not own or part.scale is None or any(rule.rounding != "nearest" for rule in decays):
            raise SpecError(
                f"{name!r} has the rules of a chip, and what the chip changed is not known of these integers; lower "
                "the float network again (lower(..., hardware=...), or --hardware)"
            )


def _edits(model: nn.Module, network: IntegerNetwork) -> list[tuple[Change, Edit]]:
    found: list[tuple[Change, Edit]] = []
    encoder = network.encoder
    if encoder is not None and not encoder.counts:
        step, most = encoder.step, 2 ** (encoder.bits - 1) - 1

        def rounded(_: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
            return (((given[0] / step).round().clamp(-most, most) * step), *given[1:])

        found.append((Change(INPUT, "inputs"), lambda twin: twin.register_forward_pre_hook(rounded) and None))
    sizes = {INPUT: network.input_shape} | {name: part.shape for name, part in network.populations.items()}
    for stage in stages_of(model)[0]:
        links = [link for link in network.connections if link.target == stage.target]
        slope, bias = folded(stage, Codes(torch.zeros(()), torch.ones(len(links[0].weight), dtype=torch.float64), True))
        unit = slope * stage.pooled(sizes[stage.sources[0]])
        unit = unit * encoder.step if encoder is not None and INPUT in stage.sources else unit
        found += _of_weights(stage, links, unit)
        if stage.neuron is not None:
            found += _of_neurons(stage, stage.neuron, network.populations[stage.target], bias)
        elif network.readout is not None:
            found += _of_biases(stage, network.readout.bias * network.readout.scale, bias)
    return found


def _of_weights(stage: Stage, links: list[Connection], unit: Tensor) -> list[tuple[Change, Edit]]:
    found: list[tuple[Change, Edit]] = []
    for link in links:
        name, layer = (stage.layer_name, stage.layer) if not link.delay else (f"{stage.target}.weight", stage.back)
        assert layer is not None
        wide = (-1, *(1,) * (link.weight.ndim - 1))
        own = layer.weight.detach().double().cpu()
        by = (torch.ones_like(unit) if link.delay else unit).view(wide)
        assert link.step is not None
        # a channel that the batch norm multiplies by 0 keeps its weights
        value = torch.where(by == 0, own, link.weight.double() * link.step.view(wide) / torch.where(by == 0, 1.0, by))
        if _moved(own, value):
            set_ = (
                partial(_set_weight, name, value)
                if link.delay or not stage.within
                else partial(_set_both, stage, value)
            )
            found.append((Change(name, "weights"), set_))
    return found


def _of_neurons(stage: Stage, neuron: Neuron, part: Population, bias: Tensor) -> list[tuple[Change, Edit]]:
    form, rules = NeuronForm.of(stage.target, neuron), part.rules
    assert part.scale is not None
    changed: dict[str, dict[str, Any]] = {"decays": {}, "thresholds": {}}
    for key, rule, lost in (
        ("tau", rules.decay, part.decay), ("tau_synapse", rules.synapse_decay, part.synapse_decay)
    ):  # fmt: skip
        if rule is not None and (key == "tau" or form.has_synapse):
            kept = lost.double() / 2**rule.bits
            if _moved(1.0 / getattr(form, key), kept):
                changed["decays"][key] = 1.0 / kept
    threshold = (part.threshold - int(form.above)).double() * part.scale.double()
    if _moved(form.threshold, threshold):
        changed["thresholds"]["threshold"] = threshold
    if form.subtract is not None and part.subtract is not None:
        subtract = part.subtract.double() * part.scale.double()
        if _moved(form.subtract, subtract):
            changed["thresholds"]["subtract"] = subtract
    found: list[tuple[Change, Edit]] = [
        (Change(stage.target, kind), partial(_set_form, stage.target, fields))
        for kind, fields in changed.items() if fields
    ]  # fmt: skip
    gain = form.membrane_gain if form.membrane_gain.numel() == 1 else form.membrane_gain.expand(part.shape)
    added = (part.bias.double() * part.scale.double() * gain).expand(part.shape).reshape(len(bias), -1).mean(1)
    if stage.back is not None and stage.back.bias is not None:
        bias = bias + stage.back.bias.detach().double().cpu()
    return found + _of_biases(stage, added, bias)


def _of_biases(stage: Stage, added: Tensor, bias: Tensor) -> list[tuple[Change, Edit]]:
    if not _moved(bias, added):
        return []
    return [(Change(stage.layer_name, "biases"), lambda twin: shift_bias(twin, stage, added - bias))]


def _moved(before: Tensor, after: Tensor) -> bool:
    apart = (before - after).abs().nan_to_num(0.0)
    return float(apart.max()) > _FLOAT32 * float(before.abs().max())


def _set_weight(name: str, value: Tensor, twin: nn.Module) -> None:
    layer: Any = twin.get_submodule(name)
    layer.weight = nn.Parameter(value.to(layer.weight))


def _set_both(stage: Stage, value: Tensor, twin: nn.Module) -> None:
    """Give a convolution and the pools behind it the weights of their one convolution."""
    old: Any = twin.get_submodule(stage.layer_name)
    layer: Any = copy.deepcopy(stage.layer).to(old.weight)
    layer.weight = nn.Parameter(value.to(old.weight))
    if old.bias is not None:
        # another change may have moved it already
        layer.bias = nn.Parameter(old.bias.detach().clone())
    twin.set_submodule(stage.layer_name, layer)
    for name in stage.within:
        twin.set_submodule(name, nn.Identity())


def _set_form(name: str, fields: dict[str, Any], twin: nn.Module) -> None:
    """Give neurons other numbers; their membrane quantizer stays."""
    old: Any = twin.get_submodule(name)
    made: Neuron = replace(NeuronForm.of(name, old), **fields).neuron()
    made = Recurrent(made, old.weight) if isinstance(old, Recurrent) else made
    made.membrane = old.membrane
    twin.set_submodule(name, made)
