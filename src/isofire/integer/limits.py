"""A chip's limits against a mapped network: every breach, with layer and number, and a table of what is used."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

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
    found = [(name, row) for name in spec.limits for row in _used(network, name)]
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


def _used(n: _Network, name: str) -> list[Resource]:
    """What a network uses of the chip by a limit's count: in all, or in the layer that uses most."""
    if name in CORE_MEMORIES:
        # of both at once, core by core
        return _memories(n) if name == CORE_MEMORIES[0] else []
    title, count = _CHECKS[name]
    if name == "cores" and CORE_MEMORIES[0] not in n.spec.limits:
        title += ", at the least"
    used = count(n)
    by_layer = {"": used} if isinstance(used, int) else used
    if not by_layer:
        return []
    most = max(by_layer, key=lambda key: by_layer[key])
    return [Resource(title, by_layer[most], _limit(n, name), most)]


def _limit(network: _Network, name: str) -> int:
    value = network.spec.limits[name]
    assert isinstance(value, int)
    return value


def _size(layer: ChipLayer) -> int:
    return math.prod(layer.shape)


def _nonzero(codes: Tensor | None) -> int:
    return 0 if codes is None else int((codes != 0).sum())


def _recurrent(n: _Network) -> int:
    between = sum(_nonzero(layer.codes) for layer in n.hidden if INPUT not in layer.stage.sources)
    return between + sum(_nonzero(layer.back_codes) for layer in n.hidden)


def _read(n: _Network) -> dict[str, int]:
    read = [s for layer in n.layers if layer.output for s in layer.stage.sources if s != INPUT]
    return {s: math.prod(n.shape(s)) for s in read}


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


def _paddings(n: _Network) -> dict[str, int]:
    stages = [layer.stage for layer in n.layers if isinstance(layer.stage.layer, nn.Conv2d)]
    return {stage.layer_name: max(stage.geometry()["padding"]) for stage in stages}


def _fan_in(n: _Network) -> dict[str, int]:
    """Of one neuron, whose weights lie on one core: more neurons go to another, more inputs cannot."""
    return {layer.name: int((layer.fan_codes != 0).sum(1).max()) * len(layer.stage.sources) for layer in n.layers}


def _shares(layer: ChipLayer, n: _Network) -> int:
    """Cores over which a layer is spread, for neurons, weights and axons."""
    limits, weights = n.spec.limits, _nonzero(layer.codes)
    if layer.codes.ndim == 4:
        weights *= math.prod(layer.shape[1:])
    sources = layer.stage.sources
    if layer.back_codes is not None:
        weights, sources = weights + _nonzero(layer.back_codes), (*sources, layer.name)
    needs = {
        "neurons_a_core": _size(layer),
        "synapse_bytes_a_core": weights,
        "axons_in": sum(math.prod(n.shape(source)) for source in sources),
    }
    return max(math.ceil(need / _limit(n, key)) for key, need in needs.items() if key in limits)


def _cores(n: _Network) -> int:
    """Cores of different sizes take a layer each; cores of one size share layers out."""
    return len(n.layers) if CORE_MEMORIES[0] in n.spec.limits else sum(_shares(layer, n) for layer in n.layers)


def _power(x: int) -> int:
    return 1 << max(0, math.ceil(math.log2(x)))


def _memories(n: _Network) -> list[Resource]:
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


_Check = Callable[[_Network], int | dict[str, int]]
# `other_forms` refuses what there is not of a form, and more than a core has goes to another, which counts as a core
_NO_COUNT = ("square", "stride", "pool", "groups", "dilation", "neurons_a_core", "synapse_bytes_a_core")
_CHECKS: dict[str, tuple[str, _Check]] = {
    "inputs": ("input channels", lambda n: math.prod(n.input_shape)),
    "hidden": ("hidden neurons", lambda n: sum(map(_size, n.hidden))),
    "outputs": ("output neurons", lambda n: {x.name: _size(x) for x in n.layers if x.output}),
    # every neuron here has one current
    "synapses": ("synaptic currents a neuron", lambda n: 1),
    "fan_out": ("fan-out of a hidden neuron", lambda n: {x.name: n.fan_out(x.name) for x in n.hidden}),
    "hidden_reached": (
        "hidden neurons that inputs reach",
        lambda n: {x.name: _size(x) for x in n.hidden if INPUT in x.stage.sources},
    ),
    "hidden_read": ("hidden neurons that outputs read", _read),
    "recurrent_weights": ("weights between hidden neurons", _recurrent),
    "cores": ("cores", _cores),
    "destinations": (
        "destinations of a layer",
        lambda n: {x.name: sum(x.name in layer.stage.sources for layer in n.layers) for x in n.layers},
    ),
    "input_size": ("height and width of the input", lambda n: max(n.input_shape[-2:])),
    "output_size": (
        "height and width of a map",
        lambda n: {x.name: max(x.shape[-2:]) for x in n.layers if len(x.shape) == 3},
    ),
    "channels": ("channels", lambda n: {x.name: x.shape[0] for x in n.layers}),
    "kernel": ("size of a kernel", lambda n: {x.stage.layer_name: max(_kernel_size(x, n)) for x in n.layers}),
    "padding": ("padding", _paddings),
    "bias_memory": (
        "biases of a core",
        lambda n: {x.name: x.shape[0] for x in n.layers if bool((x.biases != 0).any())},
    ),
    "axons_in": ("inputs of a neuron", _fan_in),
    "axons_out": ("output axons of a core", lambda n: {x.name: min(_size(x), 1024) for x in n.layers}),
    "thresholds_a_core": (
        "thresholds of a core",
        lambda n: {x.name: x.threshold.unique().numel() for x in n.layers},
    ),
    **dict.fromkeys((*_NO_COUNT, *CORE_MEMORIES), ("", lambda n: {})),
}
