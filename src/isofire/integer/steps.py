"""What each approximation of a chip does to the firing, alone: the float network with one change at a time."""

from __future__ import annotations

import copy
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any, cast

import msgspec
import torch
from torch import Tensor, nn

from isofire.batches import Data
from isofire.errors import SpecError
from isofire.firing import Comparison
from isofire.firing.compare import observe_together
from isofire.integer.chip_layer import ChipLayer
from isofire.integer.mapping import ChipMapping, charge_of
from isofire.integer.network import IntegerNetwork
from isofire.integer.neuron_form import NeuronForm
from isofire.integer.stages import Stage
from isofire.neurons import Recurrent
from isofire.quantization import convert, is_converted, spec_of
from isofire.text_table import TableShown, TextTable

FLOAT_STEPS = ("weights", "decays", "thresholds", "biases", "synapse", "reset", "spikes", "floor")
"""Changes that a float network can make too. What is left are biases that act early, and the states."""
EARLY = "biases, early"
"""What biases do while the first spikes are on their way to a layer."""
STATES = "states"
SEVERAL = "spikes, several"
"""What spikes beside the first do that a neuron fires in a step before it is reset to 0, which no float one does."""
_NEVER = 1e-30
"""A share of a current that is kept, in place of 0: thresholds divided by it are never reached."""


@dataclass(frozen=True)
class Steps(TableShown):
    """From the float network to the chip.

    Parameters
    ----------
    alone
        Change -> the float network with nothing else changed, against the float network.
    states
        The chip against the float network with all of those changes: what its rounded and saturating states do. Its
        layers rest until the first spikes can reach them.
    early
        The chip as it runs, its biases acting from the first step on, against the chip whose layers rest; None where
        that is the same.
    several
        The chip, whose neurons may fire several times before they are reset to 0, against the chip whose neurons fire
        once; None where they do, or subtract.
    everything
        The chip against the float network.
    mapping
        What was changed.
    """

    alone: dict[str, Comparison]
    states: Comparison
    early: Comparison | None
    several: Comparison | None
    everything: Comparison
    mapping: ChipMapping

    def rates(self) -> dict[str, dict[str, float]]:
        """Layer -> spikes a neuron and step of "float", of each change alone, and of the "chip"."""
        found: dict[str, dict[str, float]] = {}
        for place, layer in enumerate(self.everything.layers):
            row = {"float": layer.mfr_fp}
            row |= {name: comparison.layers[place].mfr for name, comparison in self.alone.items()}
            found[layer.layer] = row | {"chip": layer.mfr}
        return found

    def changes(self) -> dict[str, Comparison]:
        """Change -> comparison: each alone, what no float network does, each on top of all before, and "all"."""
        on_top = {STATES: self.states, EARLY: self.early, SEVERAL: self.several}
        found = {name: comparison for name, comparison in on_top.items() if comparison is not None}
        return {**self.alone, **found, "all": self.everything}

    def table(self) -> str:
        """A line a change: drift, accuracy, and every layer's rate against that of the float network."""
        names = [layer.layer for layer in self.everything.layers]
        rows = [_row(f"{name} alone", found) for name, found in self.alone.items()]
        rows.append(_row("states, on top of all these", self.states))
        rows += [] if self.early is None else [_row("biases before spikes arrive, on top", self.early)]
        rows += [] if self.several is None else [_row("several spikes before a reset to 0, on top", self.several)]
        rows.append(_row("all (the chip)", self.everything))
        titles = ("change", "EMD", "accuracy", "agree %", *names)
        first = (
            "float",
            "",
            f"{self.everything.accuracy_fp:.4f}",
            "",
            *(f"{x.mfr_fp:.4f}" for x in self.everything.layers),
        )
        return TextTable(titles, [first, *rows], texts=frozenset({0}), rules=frozenset({1, len(rows)})).text()

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "images": self.everything.n_images,
            "steps": {name: dict(found.overall) for name, found in self.changes().items()},
            "rates": self.rates(),
        }


def _row(name: str, found: Comparison) -> tuple[str, ...]:
    moved = [_change(layer.mfr_fp, layer.mfr) for layer in found.layers]
    return (
        name,
        f"{found.overall['emd_layer_mean']:.5f}",
        f"{found.accuracy:.4f}",
        f"{100 * found.agreement:.1f}",
        *moved,
    )


def _change(before: float, after: float) -> str:
    if before == after:
        return "="
    if after == 0:
        return "silent"
    return f"{100 * (after / before - 1):+.1f} %" if before else f"{after:.4f}"


def steps_of(
    model: nn.Module, network: IntegerNetwork, data: Data, *, max_images: int | None = None, batch_size: int = 64
) -> Steps:
    """Measure what each change of a lowered network does alone, in one pass over the data.

    Parameters
    ----------
    model
        The float network that was lowered.
    network
        What `lower(model, ..., hardware=...)` gave.
    data, max_images, batch_size
        As in `isofire.compare`.

    Raises
    ------
    SpecError
        If the network was not lowered onto a chip.
    """
    if network.mapping is None:
        raise SpecError("steps are measured of a network that was lowered onto a chip; give lower() hardware=")
    mapping = network.mapping
    names = [name for name in FLOAT_STEPS if name in mapping.rules]
    twins = [with_changes(model, mapping, {name}) for name in names]
    together, single = with_changes(model, mapping, names), firing_once(network)
    rested = resting(single or network)
    models = [plain(model), *twins, together, *(found for found in (rested, single) if found is not None), network]
    seen = observe_together(models, data, max_images=max_images, batch_size=batch_size).observations
    alone = {name: Comparison.observed(seen[0], found) for name, found in zip(names, seen[1:], strict=False)}
    changed = len(names) + 1
    states = Comparison.observed(seen[changed], seen[changed + 1])
    early = None if rested is None else Comparison.observed(seen[changed + 1], seen[changed + 2])
    several = None if single is None else Comparison.observed(seen[-2], seen[-1])
    return Steps(alone, states, early, several, Comparison.observed(seen[0], seen[-1]), mapping)


def firing_once(network: IntegerNetwork) -> IntegerNetwork | None:
    """A network whose neurons fire once a step before they are reset to 0; None where they do already."""
    twin = copy.deepcopy(network)
    many = [part for part in twin.populations.values() if part.reset_to == "zero" and part.most_spikes != 1]
    for part in many:
        part.rules = msgspec.structs.replace(part.rules, spikes=1, output_spikes=1)
    return twin if many else None


def resting(network: IntegerNetwork) -> IntegerNetwork | None:
    """A chip's network whose layers rest until the first spikes can reach them; None where that is the same."""
    layers = () if network.mapping is None else network.mapping.layers
    rest = {layer.name: layer.latency + layer.neuron.early for layer in layers}
    if not any(rest[layer.name] > 0 and bool((layer.biases != 0).any()) for layer in layers):
        return None
    twin = copy.deepcopy(network)
    twin.rest = rest
    return twin


def with_changes(
    model: nn.Module, mapping: ChipMapping, changes: Collection[str] | Collection[tuple[str, str]]
) -> nn.Module:
    """A copy of the float network in which some changes of a mapping are made, and no others.

    `changes`: names, of all layers, or pairs of a layer of neurons and a name.
    """
    twin = copy.deepcopy(plain(model)).eval()
    for layer in mapping.layers:
        names = {c if isinstance(c, str) else c[1] for c in changes if isinstance(c, str) or c[0] == layer.name}
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


def plain(model: nn.Module) -> nn.Module:
    """The network with the values of its levels as weights."""
    return convert(model) if spec_of(model) is not None and not is_converted(model) else model


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
    """Bring the current that a constant `bias` [out] leads to in time into the first step, as where the chip adds it
    behind the current: I = bias * tau then, of which each step loses what the bias adds."""
    if not (layer.neuron.changed.has_synapse and form.has_synapse) or not bool((bias != 0).any()):
        return
    first = layer.per_neuron(bias) * (form.tau_synapse - 1.0)

    def settled(_: nn.Module, args: Any, kwargs: Any) -> tuple[Any, Any]:
        x = charge_of(args, kwargs)
        return (torch.cat([x[:1] + first.to(x), x[1:]]),), {}

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
