"""A float network on a chip: every layer's integers, delays and latencies, and all that the chip refuses."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from isofire.integer.chip_layer import ChipLayer
from isofire.integer.chip_neuron import Gain, on_chip
from isofire.integer.connection import INPUT, Connection
from isofire.integer.decays import ShiftBy
from isofire.integer.hardware import HardwareSpec
from isofire.integer.limits import Resources, check_limits
from isofire.integer.network import Encoder, IntegerNetwork
from isofire.integer.neuron_form import NeuronForm
from isofire.integer.population import Population
from isofire.integer.refusals import Refusal
from isofire.integer.stages import Stage
from isofire.neurons.fold import apply_per_step
from isofire.running import hooked

_EXAMPLES = 64
"""Images of the example on which states are looked at."""


@dataclass(frozen=True)
class ChipMapping:
    """What a float network became on a chip.

    Parameters
    ----------
    spec
        The chip.
    layers
        In order.
    refusals
        What the chip does otherwise than the float network, or cannot do; in a network that was lowered, all of them
        were allowed.
    resources
        What it takes of what there is.
    """

    spec: HardwareSpec
    layers: tuple[ChipLayer, ...]
    refusals: tuple[Refusal, ...]
    resources: Resources

    @property
    def rules(self) -> tuple[str, ...]:
        """The approximations that were needed."""
        return tuple(dict.fromkeys(refusal.rule for refusal in self.refusals if refusal.approximable))


def map_onto(
    spec: HardwareSpec, model: nn.Module, stages: list[Stage], example: Tensor, shapes: dict[str, tuple[int, ...]], *,
    frames: bool, shift_by: ShiftBy, gain: Gain,
) -> ChipMapping:  # fmt: skip
    """Choose every layer's integers; refuses nothing yet. `frames`: the example is [T, N, ...], not [N, ...]."""
    input_shape = tuple(example.shape[2 if frames else 1 :])
    refused: list[Refusal] = []
    refused += _inputs(spec, example)
    charged = _charged(model, stages, example, frames)
    sizes = {INPUT: input_shape} | shapes
    layers: list[ChipLayer] = []
    latency = {INPUT: 0}
    for place, stage in enumerate(stages):
        if stage.neuron is None:
            says = "the network ends with sums of spikes, which no neuron takes"
            cure = f"end it with neurons behind {stage.layer_name!r}, or lower what is before and let the host add it"
            refused.append(Refusal(stage.layer_name, "layers", says, cure))
            continue
        if stage.neuron.membrane is not None:
            says = "its membranes are quantized, the chip's states have a width and rounding of their own"
            refused.append(
                Refusal(stage.target, "membranes", says, "lower the network with its weights alone quantized")
            )
        output = place == len(stages) - 1
        refused += _kinds(spec, stage, output=output)
        neuron = on_chip(
            stage.target,
            NeuronForm.of(stage.target, stage.neuron),
            spec.neuron,
            output=output,
            shift_by=shift_by,
            gain=gain,
        )
        layer = ChipLayer.of(
            stage,
            shapes[stage.target],
            neuron,
            charged[stage.target],
            spec,
            pooled=stage.pooled(sizes[stage.sources[0]]),
            output=output,
        )
        refused += _arrive(spec, layer, latency)
        layers.append(layer)
    if len(layers) == 1 and spec.weights.shift_per == "group":
        says = "its one layer of neurons is the output, which inputs do not reach; hidden neurons lie between"
        refused.append(Refusal(layers[0].name, "layers", says, "put a layer of neurons before it"))
    _choose(spec, layers)
    for layer in layers:
        layer.round(spec)
        refused += [*layer.neuron.refusals, *layer.refusals]
    resources, breaches = check_limits(spec, layers, input_shape)
    return ChipMapping(spec, tuple(layers), tuple([*refused, *breaches]), resources)


def network_of(mapping: ChipMapping, input_shape: tuple[int, ...], steps: int | None) -> IntegerNetwork:
    """The integers of a mapping that is not refused."""
    spec, populations, connections = mapping.spec, {}, []
    for layer in mapping.layers:
        populations[layer.name] = _population(spec, layer)
        connections += _connections(layer)
    most = spec.neuron.input_spikes
    encoder = Encoder(1.0, 25 if most is None else most.bit_length() + 1, steps, counts=True)
    notes: dict[str, list[str]] = {layer.name: [] for layer in mapping.layers}
    for refusal in mapping.refusals:
        named = next(
            (layer.name for layer in mapping.layers if refusal.layer in (layer.name, layer.stage.layer_name)), None
        )
        notes.setdefault(named or refusal.layer, []).append(refusal.says)
    latency = {layer.name: layer.latency for layer in mapping.layers}
    network = IntegerNetwork(populations, connections, input_shape, encoder=encoder, notes=notes, latency=latency)
    network.mapping = mapping
    return network


def _population(spec: HardwareSpec, layer: ChipLayer) -> Population:
    neuron, form = layer.neuron, layer.neuron.changed
    scale = layer.per_neuron(layer.gain / layer.unit) / form.membrane_gain
    return Population(
        spec.neuron, layer.shape, threshold=layer.threshold, reset=neuron.reset, bias=layer.biases,
        decay=neuron.decay.code, synapse_decay=neuron.synapse_decay.code, floor=floor_of(spec, layer),
        output=layer.output, scale=scale.float(),
    )  # fmt: skip


def floor_of(spec: HardwareSpec, layer: ChipLayer) -> Tensor | None:
    """The lower bound of a layer's membranes in the chip's units; the least that states hold where it has none."""
    if not spec.neuron.floor:
        return None
    least, floor = -(2 ** (spec.neuron.state_bits - 1)), layer.neuron.changed.floor
    if floor is None:
        return torch.tensor(least)
    wanted = floor * layer.neuron.changed.membrane_gain * layer.per_neuron(layer.unit / layer.gain)
    return wanted.round().clamp(min=least).to(torch.int64)


def _connections(layer: ChipLayer) -> list[Connection]:
    stage = layer.stage
    by_delay: dict[int, tuple[str, ...]] = {}
    for source in stage.sources:
        by_delay[layer.delays[source]] = (*by_delay.get(layer.delays[source], ()), source)
    about: dict[str, Any] = {"step": 2.0**layer.shift * layer.gain / layer.unit}
    if isinstance(stage.layer, nn.Conv2d):
        about |= stage.geometry()
    step = about["step"]
    found = [
        Connection(
            sources=sources, target=layer.name, weight=layer.codes, pools=tuple(pool.sum for pool in stage.pools),
            shift=layer.shift, delay=delay, **about,
        )
        for delay, sources in by_delay.items()
    ]  # fmt: skip
    if layer.back_codes is not None:
        delay = layer.delays[layer.name]
        found.append(Connection(
            sources=(layer.name,), target=layer.name, weight=layer.back_codes, shift=layer.shift, delay=delay, step=step
        ))  # fmt: skip
    return found


def _inputs(spec: HardwareSpec, example: Tensor) -> list[Refusal]:
    most = spec.neuron.input_spikes
    takes = "counts of spikes" if most is None else f"0 to {most} spikes a step"
    whole = torch.equal(example, example.round()) and bool((example >= 0).all())
    if whole and (most is None or float(example.max()) <= most):
        return []
    has = f"whole numbers up to {float(example.max()):g}" if whole else "real numbers"
    cure = f"encode inputs as {takes} before they enter, or leave the first layer to the host: lower what is behind it"
    return [Refusal(INPUT, "inputs", f"inputs are {has}, the chip takes {takes}", cure)]


def _kinds(spec: HardwareSpec, stage: Stage, *, output: bool) -> list[Refusal]:
    found = []
    kind = "conv" if isinstance(stage.layer, nn.Conv2d) else "dense"
    if kind not in spec.layers:
        cure = "write it as nn.Linear, or take another chip"
        found.append(
            Refusal(stage.layer_name, "layers", f"a {kind} layer, the chip has {', '.join(spec.layers)}", cure)
        )
    if stage.back is not None and "recurrent" not in spec.layers:
        says = f"its spikes come back to it, the chip has {', '.join(spec.layers)}"
        found.append(Refusal(stage.target, "layers", says, "train without recurrent weights, or take another chip"))
    if stage.back is not None and output and spec.weights.shift_per == "group":
        says = "the outputs have recurrent weights, the chip's hidden neurons alone have"
        found.append(Refusal(stage.target, "layers", says, "let the last layer be without"))
    if stage.pools and "sum_pool" not in spec.layers:
        cure = "use a stride in the convolution, or a linear layer that averages"
        found.append(Refusal(stage.layer_name, "layers", "an average pool before it, the chip has none", cure))
    return found


def _arrive(spec: HardwareSpec, layer: ChipLayer, latency: dict[str, int]) -> list[Refusal]:
    """Set latency and delays: all sources arrive with the same step of the float network."""
    arriving = {s: latency[s] + spec.delay[0 if s == INPUT else 1] for s in layer.stage.sources}
    last = max(arriving.values())
    layer.delays = {s: last - latency[s] for s in arriving}
    layer.latency = latency[layer.name] = last - layer.neuron.early
    refused: list[Refusal] = []
    if layer.back is not None:
        # a spike acts on the float network's next step, which the layer sees `early` steps later
        layer.delays[layer.name] = wanted = 1 + layer.neuron.early
        if wanted < spec.delay[1] or (wanted > spec.delay[1] and "conv" not in spec.layers):
            says = f"its own spikes come back after {wanted} steps, the chip's after {spec.delay[1]}"
            refused.append(Refusal(layer.name, "delays", says, "train with another synapse than before_input"))
    late = [s for s, step in arriving.items() if step != last]
    if not late or "conv" in spec.layers:
        return refused
    says = f"spikes of {late[0]!r} arrive {last - arriving[late[0]]} steps before those of other layers it adds"
    return [*refused, Refusal(layer.name, "delays", says, "give the shorter way as many layers of neurons")]


def _choose(spec: HardwareSpec, layers: list[ChipLayer]) -> None:
    for layer in layers:
        layer.choose(spec)
    if spec.weights.shift_per == "connection":
        return
    groups: dict[str, list[ChipLayer]] = {}
    # weights into one neuron share its unit: where some come from inputs and others from hidden neurons, so do shifts
    mixed = any(layer.back is not None for layer in layers)
    for layer in layers:
        key = "out" if layer.output else "in" if INPUT in layer.stage.sources and not mixed else "hidden"
        groups.setdefault(key, []).append(layer)
    for group in groups.values():
        shift = min(layer.shift for layer in group)
        for layer in group:
            layer.choose(spec, shift)


def _charged(model: nn.Module, stages: list[Stage], example: Tensor, frames: bool) -> dict[str, Tensor]:
    """Inputs [T, N, ...] of every layer of neurons, batch norms applied."""
    found: dict[str, Tensor] = {}
    neurons = [(stage.target, stage.neuron) for stage in stages if stage.neuron is not None]

    def note(name: str, _neuron: nn.Module, args: Any, kwargs: Any) -> None:
        found[name] = charge_of(args, kwargs)

    with hooked(neuron.register_forward_pre_hook(partial(note, name), with_kwargs=True) for name, neuron in neurons):
        model(example[:, :_EXAMPLES] if frames else example[:_EXAMPLES])
    return found


def charge_of(args: Any, kwargs: Any) -> Tensor:
    """What a call of isofire's neurons charges them by, [T, N, ...]: a batch norm applied, an image repeated."""
    given = dict(zip(("x", "norm", "repeat"), args, strict=False)) | kwargs
    x, norm, repeat = given["x"], given.get("norm"), given.get("repeat")
    if norm is not None:
        x = norm(x) if repeat is not None else apply_per_step(norm, x)
    return x if repeat is None else x.unsqueeze(0).expand(repeat, *x.shape)
