"""Networks of Loihi's neurons as lava-dl exports them (netx, `.net`), as networks of whole numbers."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import torch
from torch import Tensor

from isofire.errors import CheckpointError, ModelError, SpecError
from isofire.hdf5_check import check_hdf5
from isofire.integer.connection import INPUT, Connection
from isofire.integer.hardware import HardwareSpec
from isofire.integer.network import Encoder, IntegerNetwork
from isofire.integer.population import Population

_SHIFT = 6
"""Of weights and biases, whose unit is that of `vThMant`."""
_TYPES = ("dense", "conv")
_LARGEST = {"weight": 256, "bias": 4096}
"""Mantissas of Loihi."""
_RANGES = {"vThMant": (1, 2**17 - 1), "vDecay": (0, 4096), "iDecay": (0, 4096)}
_MOST = 1 << 24


def read_netx(path: str | os.PathLike[str]) -> IntegerNetwork:
    """The network of a file that lava-dl's `export_hdf5` wrote: dense and convolutional blocks of CUBA neurons.

    A block `input` encodes real numbers; it stays with the host, and the network takes its spikes [T, N, C, H, W] (or
    [T, N, inputs]). A spike takes a step to the next layer, as with lava's Dense and Conv; `latency` says so.

    Raises
    ------
    CheckpointError
        If the file cannot be read, or is no netx file.
    ModelError
        If it holds blocks, neurons or delays that are not known here; says which.
    SpecError
        If h5py is missing.
    """
    try:
        import h5py
    except ImportError as error:
        raise SpecError(f"netx files need h5py: pip install h5py ({error})") from error
    check_hdf5(path, "a netx file")
    try:
        with h5py.File(os.fspath(path), "r") as file:
            blocks = _blocks(file)
            return _network(blocks)
    except (ModelError, CheckpointError):
        raise
    except (OSError, KeyError, TypeError, ValueError, IndexError, RuntimeError, AttributeError) as error:
        raise CheckpointError(
            f"{os.fspath(path)} cannot be read as a netx file: {type(error).__name__}: {error}; export it again"
        ) from error


def _blocks(file: Any) -> list[tuple[str, dict[str, Any]]]:
    """Type and values of every block, in order."""
    group = file["layer"]
    found = []
    for place in range(len(group)):
        values = _values(group[str(place)])
        kind = np.asarray(values.pop("type")).reshape(-1)[0]
        found.append((kind.decode("ascii") if isinstance(kind, bytes) else str(kind), values))
    return found


def _values(group: Any) -> dict[str, Any]:
    """Data sets by name; those of groups inside as "group/name"."""
    found: dict[str, Any] = {}
    for name, item in group.items():
        if hasattr(item, "items"):
            found |= {f"{name}/{key}": value for key, value in _values(item).items()}
        else:
            found[name] = item[()]
    return found


def _network(blocks: list[tuple[str, dict[str, Any]]]) -> IntegerNetwork:
    chip = HardwareSpec.load("loihi1")
    populations: dict[str, Population] = {}
    connections: list[Connection] = []
    shape: tuple[int, ...] | None = None
    input_shape: tuple[int, ...] | None = None
    source = INPUT
    for place, (kind, values) in enumerate(blocks):
        if kind == "input" and place == 0:
            shape = _shape(values)
            continue
        if kind == "flatten":
            continue
        if kind not in _TYPES:
            raise ModelError(f"layer {place} is a block {kind!r}; known are input, flatten, {', '.join(_TYPES)}")
        name = f"layer{place}"
        _refuse(name, values)
        weight = _weight(name, values)
        neurons = _shape(values)
        if shape is None:
            shape = _given(kind, weight, values, neurons)
        input_shape = input_shape or shape
        try:
            populations[name] = _population(name, chip, values, neurons, kind)
            connections.append(_connection(name, source, kind, weight, values))
        except SpecError as error:
            raise ModelError(f"{name}: {error}; export the network anew") from error
        _check_sizes(name, source, shape, connections[-1], populations[name].shape)
        source, shape = name, populations[name].shape
    if not populations or input_shape is None:
        raise ModelError("the file holds no dense or convolutional block")
    latency = {name: place + 1 for place, name in enumerate(populations)}
    encoder = Encoder(1.0, 2, None, counts=True)
    return IntegerNetwork(populations, connections, input_shape, encoder=encoder, latency=latency)


def _refuse(name: str, values: dict[str, Any]) -> None:
    kind = np.asarray(values["neuron/type"]).reshape(-1)[0]
    kind = kind.decode("ascii") if isinstance(kind, bytes) else str(kind)
    if kind not in ("CUBA", "LOIHI"):
        raise ModelError(f"{name} has neurons of type {kind!r}; known are CUBA and LOIHI")
    if "weight/imag" in values:
        raise ModelError(f"{name} has complex weights, which CUBA neurons do not take")
    if "delay" in values and np.any(np.asarray(values["delay"]) != 0):
        most = int(np.max(values["delay"]))
        raise ModelError(
            f"{name} delays spikes by up to {most} steps, each neuron's by its own; train it without delay"
        )
    if int(values.get("neuron/refDelay", 1)) != 1:
        raise ModelError(f"{name} has a refractory delay of {int(values['neuron/refDelay'])} steps; known is 1")
    if bool(values.get("neuron/gradedSpike", False)):
        raise ModelError(f"{name} sends graded spikes, Loihi 1 has none")
    if "neuron/weight_exp" in values:
        raise ModelError(f"{name} has weights of an exponent of its own (normalisation); known are those without")


def _shape(values: dict[str, Any]) -> tuple[int, ...]:
    return tuple(int(size) for size in np.asarray(values["shape"]).reshape(-1))


def _given(kind: str, weight: Tensor, values: dict[str, Any], neurons: tuple[int, ...]) -> tuple[int, ...]:
    """Shape of the input, where no block `input` tells it."""
    if kind == "dense":
        return (weight.reshape(int(np.prod(neurons)), -1).shape[1],)
    raise ModelError("a network that begins with a convolution needs a block `input`, which tells its height and width")


def _population(
    name: str, chip: HardwareSpec, values: dict[str, Any], neurons: tuple[int, ...], kind: str
) -> Population:
    # dense blocks may be called [out] or [out, 1, 1]
    shape = (int(np.prod(neurons)),) if kind == "dense" else neurons
    bias: Any = 0
    if "bias" in values:
        bias = _whole(name, "bias", values["bias"]).reshape(-1, *(1,) * (len(shape) - 1)) << _SHIFT
    numbers = {key: _number(name, key, values[f"neuron/{key}"]) for key in ("vThMant", "vDecay", "iDecay")}
    return Population(
        chip.neuron, shape, threshold=numbers["vThMant"], reset="zero", bias=bias, decay=numbers["vDecay"],
        synapse_decay=numbers["iDecay"],
    )  # fmt: skip


def _connection(name: str, source: str, kind: str, weight: Tensor, values: dict[str, Any]) -> Connection:
    if kind == "dense":
        out = int(np.prod(_shape(values)))
        dense = weight.reshape(out, -1)
        return Connection(sources=(source,), target=name, weight=dense, shift=_SHIFT, delay=1)
    sizes: dict[str, Any] = {key: _pair(values[key]) for key in ("stride", "padding", "dilation")}
    kernel = weight.reshape(weight.shape[:4])
    return Connection(
        sources=(source,), target=name, weight=kernel, kind="conv", groups=int(values["groups"]), shift=_SHIFT, delay=1,
        **sizes,
    )  # fmt: skip


def _pair(value: Any) -> tuple[int, int]:
    sizes = [int(size) for size in np.asarray(value).reshape(-1)]
    return sizes[0], sizes[-1]


def _check_sizes(name: str, source: str, given: tuple[int, ...], to: Connection, neurons: tuple[int, ...]) -> None:
    """What arrives fits the weights, and what they give the neurons."""
    inputs = int(np.prod(given)) if to.kind == "dense" else given[0]
    wanted = to.weight.shape[1] * to.groups
    if wanted != inputs or (to.kind == "conv" and len(given) != 3):
        raise ModelError(
            f"{name} has weights for {wanted} {'inputs' if to.kind == 'dense' else 'channels'}, and {source} gives "
            f"{list(given)}; export the network anew"
        )
    if to.kind == "conv" and (made := tuple(to.sums([torch.zeros(1, *given).long()]).shape[1:])) != neurons:
        raise ModelError(f"{name} has neurons {list(neurons)}, and its convolution gives {list(made)}; export it anew")


def _weight(name: str, values: dict[str, Any]) -> Tensor:
    """Mantissas as the chip has them; simulators disagree on others."""
    weight = _whole(name, "weight", values["weight"])
    if not weight.numel():
        raise ModelError(f"{name} has no weights; export the network anew")
    least, most = int(weight.min()), int(weight.max())
    mixed = least < 0 < most
    if mixed and bool((weight % 2 != 0).any()):
        odd = int(weight[weight % 2 != 0][0])
        raise ModelError(
            f"{name} has weights of both signs, which are even on the chip, and {odd} among them; train with weights "
            "of a step of 2, as lava-dl's own quantization does"
        )
    low, high = (-256, 254) if mixed else (-255, 255)
    if least < low or most > high:
        signs = "both signs" if mixed else "one sign"
        raise ModelError(f"{name} has weights {least}..{most}; those of {signs} lie in {low}..{high} on the chip")
    return weight


def _number(name: str, key: str, value: Any) -> Tensor:
    found = _whole(name, key, value).reshape(-1)
    if found.unique().numel() != 1:
        raise ModelError(f"{name}: {key} must be one for all neurons, got {int(found.min())}..{int(found.max())}")
    low, high = _RANGES[key]
    if not low <= int(found[0]) <= high:
        raise ModelError(f"{name}: {key} must lie in {low}..{high:,}, as the chip's do, got {int(found[0]):,}")
    return found[0]


def _whole(name: str, key: str, value: Any) -> Tensor:
    array = np.asarray(value, dtype=np.float64)
    if not np.array_equal(array, np.round(array)):
        raise ModelError(f"{name}: {key} must be whole numbers, as the chip's are; export the quantized network")
    if array.size and float(np.abs(array).max()) > (most := _LARGEST.get(key, _MOST)):
        raise ModelError(f"{name}: {key} must lie within +-{most:,}, as the chip's do, got {np.abs(array).max():g}")
    return torch.from_numpy(array.astype(np.int64))
