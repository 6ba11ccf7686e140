"""A chip's limits against a mapped network: every breach, with layer and number, and a table of what is used."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from isofire.integer.chip_layer import ChipLayer
from isofire.integer.connection import INPUT
from isofire.integer.forms import other_forms
from isofire.integer.hardware import HardwareSpec
from isofire.integer.limit_names import CORE_MEMORIES
from isofire.integer.placement import Spot, place
from isofire.integer.refusals import Refusal
from isofire.text_table import TableShown, TextTable


@dataclass(frozen=True)
class Resource:
    """One thing that a chip has so much of. `layer`: where most of it is used, or ""."""

    name: str
    used: int
    there: int
    layer: str = ""


@dataclass(frozen=True)
class Resources(TableShown):
    """What a network takes of a chip."""

    chip: str
    rows: tuple[Resource, ...]

    def table(self) -> str:
        """A line each."""
        rows = [(row.name, f"{row.used:,}", f"{row.there:,}", _share(row), row.layer) for row in self.rows]
        return TextTable((self.chip, "used", "there", "%", "most in"), rows, texts=frozenset({0, 4})).text()

    def to_dict(self) -> dict[str, Any]:
        """Name -> used, there and layer."""
        return {row.name: {"used": row.used, "there": row.there, "layer": row.layer} for row in self.rows}

    def __str__(self) -> str:
        return self.table()


def _share(row: Resource) -> str:
    return f"{row.used / row.there:.0%}" if row.there else "-"


@dataclass(frozen=True)
class _Network:
    """What limits are functions of."""

    spec: HardwareSpec
    layers: Sequence[ChipLayer]
    input_shape: tuple[int, ...]

    @property
    def placed(self) -> list[Spot]:
        """Of chips whose cores take a layer each, where layers lie; none of others."""
        if "kernel_memory" not in self.spec.limits:
            return []
        return place(self.spec, {x.name: (_kernel_need(x, self), _neuron_need(x)) for x in self.layers})

    @property
    def hidden(self) -> list[ChipLayer]:
        return [layer for layer in self.layers if not layer.output]

    def fan_out(self, name: str) -> int:
        """Neurons that the busiest neuron of a layer leads to."""
        leads = [x.codes != 0 for x in self.layers if name in x.stage.sources and x.codes.ndim == 2]
        leads += [x.back_codes != 0 for x in self.layers if x.name == name and x.back_codes is not None]
        return int(torch.cat(leads).sum(0).max()) if leads else 0

    def shape(self, name: str) -> tuple[int, ...]:
        return self.input_shape if name == INPUT else next(layer.shape for layer in self.layers if layer.name == name)


def check_limits(
    spec: HardwareSpec, layers: Sequence[ChipLayer], input_shape: tuple[int, ...]
) -> tuple[Resources, list[Refusal]]:
    """What of the chip is used, and a refusal for each limit that is not kept."""
    network = _Network(spec, layers, input_shape)
    found = [(name, row) for name in spec.limits for row in _CHECKS[name](network, name)]
    rows = [row for _, row in found]
    breaches = [
        Refusal(
            row.layer or "network", "limits", f"{row.name}: {row.used:,} are needed, {row.there:,} there",
            _CURES.get(name, _CURE),
        )
        for name, row in found
        if row.used > row.there and name not in CORE_MEMORIES
    ]  # fmt: skip
    breaches += [Refusal(x.layer, "limits", x.why, _CURES["kernel_memory"]) for x in network.placed if x.why]
    maps = {layer.name: network.shape(layer.stage.sources[0]) for layer in layers}
    kernels = {layer.name: _kernel_size(layer, network) for layer in layers}
    return Resources(spec.title, tuple(rows)), [*breaches, *other_forms(spec, layers, maps, kernels)]


_CURE = "train a smaller network, or take a larger chip"
_CURES = {
    "inputs": "bring inputs together on fewer channels, or take a chip with more",
    "fan_out": "set weights to 0 (prune), or make the layers behind it smaller",
    "axons_in": "set weights to 0 (prune), or make the layers before it smaller",
    "recurrent_weights": "set weights to 0 (prune), or train a smaller network",
    "destinations": "let fewer layers take its spikes, such as by shortcuts over one layer alone",
    "input_size": "pool or cut inputs before they enter",
    "kernel_memory": "train it with fewer channels, a smaller kernel, or on a smaller map",
    "thresholds_a_core": "train with one threshold a layer",
}
_Check = Callable[[_Network, str], list[Resource]]


def _limit(network: _Network, name: str) -> int:
    value = network.spec.limits[name]
    assert isinstance(value, int)
    return value


def _row(network: _Network, name: str, used: dict[str, int], title: str) -> list[Resource]:
    """The largest of what layers use."""
    if not used:
        return []
    most = max(used, key=lambda key: used[key])
    return [Resource(title, used[most], _limit(network, name), most)]


def _inputs(n: _Network, name: str) -> list[Resource]:
    return [Resource("input channels", math.prod(n.input_shape), _limit(n, name))]


def _hidden(n: _Network, name: str) -> list[Resource]:
    return [Resource("hidden neurons", sum(math.prod(layer.shape) for layer in n.hidden), _limit(n, name))]


def _outputs(n: _Network, name: str) -> list[Resource]:
    return _row(n, name, {layer.name: math.prod(layer.shape) for layer in n.layers if layer.output}, "output neurons")


def _synapses(n: _Network, name: str) -> list[Resource]:
    # every neuron here has one current
    return [Resource("synaptic currents a neuron", 1, _limit(n, name))]


def _fan_out(n: _Network, name: str) -> list[Resource]:
    return _row(n, name, {layer.name: n.fan_out(layer.name) for layer in n.hidden}, "fan-out of a hidden neuron")


def _reached(n: _Network, name: str) -> list[Resource]:
    used = {layer.name: math.prod(layer.shape) for layer in n.hidden if INPUT in layer.stage.sources}
    return _row(n, name, used, "hidden neurons that inputs reach")


def _read(n: _Network, name: str) -> list[Resource]:
    read = [s for layer in n.layers if layer.output for s in layer.stage.sources if s != INPUT]
    used = {s: math.prod(n.shape(s)) for s in read}
    return _row(n, name, used, "hidden neurons that outputs read")


def _recurrent(n: _Network, name: str) -> list[Resource]:
    between = [layer for layer in n.hidden if INPUT not in layer.stage.sources]
    used = sum(int((layer.codes != 0).sum()) for layer in between)
    used += sum(int((layer.back_codes != 0).sum()) for layer in n.hidden if layer.back_codes is not None)
    return [Resource("weights between hidden neurons", used, _limit(n, name))]


def _destinations(n: _Network, name: str) -> list[Resource]:
    used = {source: sum(source in layer.stage.sources for layer in n.layers) for source in [x.name for x in n.layers]}
    return _row(n, name, used, "destinations of a layer")


def _input_size(n: _Network, name: str) -> list[Resource]:
    return [Resource("height and width of the input", max(n.input_shape[-2:]), _limit(n, name))]


def _output_size(n: _Network, name: str) -> list[Resource]:
    used = {layer.name: max(layer.shape[-2:]) for layer in n.layers if len(layer.shape) == 3}
    return _row(n, name, used, "height and width of a map")


def _channels(n: _Network, name: str) -> list[Resource]:
    return _row(n, name, {layer.name: layer.shape[0] for layer in n.layers}, "channels")


def _kernel_size(layer: ChipLayer, n: _Network) -> tuple[int, int]:
    """Height and width of the kernel; a dense layer is a convolution with a kernel as large as the map."""
    if layer.codes.ndim == 4:
        return layer.codes.shape[-2], layer.codes.shape[-1]
    shape = _arriving(layer, n)
    return (shape[-2], shape[-1]) if len(shape) == 3 else (1, 1)


def _arriving(layer: ChipLayer, n: _Network) -> tuple[int, ...]:
    """Shape of what arrives at the weights, pools done."""
    shape = n.shape(layer.stage.sources[0])
    for pool in layer.stage.pools:
        size, stride = pool.sum.size or shape[-2:], pool.sum.stride
        pad = pool.sum.padding
        spread = ((s + 2 * p - k) // t + 1 for s, p, k, t in zip(shape[-2:], pad, size, stride, strict=True))
        shape = (shape[0], *spread)
    return shape


def _kernel(n: _Network, name: str) -> list[Resource]:
    return _row(
        n, name, {layer.stage.layer_name: max(_kernel_size(layer, n)) for layer in n.layers}, "size of a kernel"
    )


def _padding(n: _Network, name: str) -> list[Resource]:
    used = {
        layer.stage.layer_name: max(layer.stage.geometry()["padding"])
        for layer in n.layers
        if isinstance(layer.stage.layer, nn.Conv2d)
    }
    return _row(n, name, used, "padding")


def _form(n: _Network, name: str) -> list[Resource]:
    # what of it there is not is refused by `other_forms`, and nothing is used up
    return []


def _fan_in(n: _Network, name: str) -> list[Resource]:
    """Of one neuron, whose weights lie on one core: more neurons go to another, more inputs cannot."""
    used = {layer.name: int((layer.fan_codes != 0).sum(1).max()) * len(layer.stage.sources) for layer in n.layers}
    return _row(n, name, used, "inputs of a neuron")


def _bias_memory(n: _Network, name: str) -> list[Resource]:
    used = {layer.name: layer.shape[0] for layer in n.layers if bool((layer.biases != 0).any())}
    return _row(n, name, used, "biases of a core")


def _cores(n: _Network, name: str) -> list[Resource]:
    """Cores of different sizes take a layer each; cores of one size share layers out."""
    if "kernel_memory" in n.spec.limits:
        return [Resource("cores", len(n.layers), _limit(n, name))]
    return [Resource("cores, at the least", sum(_shares(layer, n) for layer in n.layers), _limit(n, name))]


def _shares(layer: ChipLayer, n: _Network) -> int:
    """Cores over which a layer is spread, for neurons, weights and axons."""
    limits, neurons = n.spec.limits, math.prod(layer.shape)
    weights = int((layer.codes != 0).sum())
    if layer.codes.ndim == 4:
        weights *= math.prod(layer.shape[1:])
    sources = layer.stage.sources
    if layer.back_codes is not None:
        weights, sources = weights + int((layer.back_codes != 0).sum()), (*sources, layer.name)
    needs = {
        "neurons_a_core": neurons,
        "synapse_bytes_a_core": weights,
        "axons_in": sum(math.prod(n.shape(source)) for source in sources),
    }
    return max(math.ceil(need / _limit(n, key)) for key, need in needs.items() if key in limits)


def _a_core(n: _Network, name: str) -> list[Resource]:
    # more than a core has goes to another, and is counted as cores
    return []


def _axons_out(n: _Network, name: str) -> list[Resource]:
    return _row(
        n, name, {layer.name: min(math.prod(layer.shape), 1024) for layer in n.layers}, "output axons of a core"
    )


def _thresholds(n: _Network, name: str) -> list[Resource]:
    return _row(n, name, {layer.name: layer.threshold.unique().numel() for layer in n.layers}, "thresholds of a core")


def _power(x: int) -> int:
    return 1 << max(0, math.ceil(math.log2(x)))


def _memory(n: _Network, name: str) -> list[Resource]:
    return [
        Resource(f"{kind} memory, {spot.where}", spot.needs[place], spot.there[place], spot.layer)
        for spot in n.placed
        for place, kind in enumerate(("kernel", "neuron"))
    ]


def _kernel_need(layer: ChipLayer, n: _Network) -> int:
    height, width = _kernel_size(layer, n)
    return _arriving(layer, n)[0] * _power(height * width) * _power(layer.shape[0])


def _neuron_need(layer: ChipLayer) -> int:
    height, width = layer.shape[-2:] if len(layer.shape) == 3 else (1, 1)
    return layer.shape[0] * _power(height) * _power(width)


_CHECKS: dict[str, _Check] = {
    "inputs": _inputs,
    "hidden": _hidden,
    "outputs": _outputs,
    "synapses": _synapses,
    "fan_out": _fan_out,
    "hidden_reached": _reached,
    "hidden_read": _read,
    "recurrent_weights": _recurrent,
    "cores": _cores,
    "destinations": _destinations,
    "input_size": _input_size,
    "output_size": _output_size,
    "channels": _channels,
    "kernel": _kernel,
    "padding": _padding,
    "square": _form,
    "stride": _form,
    "pool": _form,
    "groups": _form,
    "dilation": _form,
    "bias_memory": _bias_memory,
    "kernel_memory": _memory,
    "neuron_memory": _a_core,
    "neurons_a_core": _a_core,
    "axons_in": _fan_in,
    "axons_out": _axons_out,
    "thresholds_a_core": _thresholds,
    "synapse_bytes_a_core": _a_core,
}
