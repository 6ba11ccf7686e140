"""An integer network as a folder that numpy alone reads: packed codes, a manifest, and golden vectors.

`manifest.json` says the order of layers, connections, widths and rules, and of each array its file, shape, bits, least
value and sha256; its own sha256 is that of the rest of it (`sum_of`). An array of whole numbers is a flat uint8 `.npy`
of bits: the first `bits` of them, most significant first, are the first value minus `least`, and so on in C order.
`golden` holds codes of inputs, and every spike, membrane and readout of each step that they lead to.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import math
import os
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
import torch
from torch import Tensor

from isofire.errors import DataError, SpecError
from isofire.export.folder import write_folder
from isofire.files import read_file
from isofire.integer import (
    Connection,
    Encoder,
    IntegerNetwork,
    NeuronRules,
    Population,
    Readout,
    StateTable,
    SumPool,
    Trace,
)
from isofire.packed_bits import pack, unpack
from isofire.quantization import note_spec_, spec_of
from isofire.spec import QuantSpec
from isofire.toml_json import read_json

FORMAT = "isofire-bundle"
VERSION = 1
_MOST = 1 << 31


def write_bundle(path: str | os.PathLike[str], network: IntegerNetwork, codes: Tensor) -> Path:
    """Write a network, with what it makes of input codes [T, N, ...] as golden vectors; whole, or not at all.

    Raises
    ------
    OutputError
        If the folder exists or cannot be written.
    """

    def fill(folder: Path) -> None:
        writer = _Writer(folder)
        manifest = {"format": FORMAT, "version": VERSION, **_described(network, writer)}
        manifest["golden"] = _golden(network, codes, writer)
        manifest["sha256"] = sum_of(manifest)
        (folder / "manifest.json").write_text(json.dumps(manifest, indent=1), encoding="utf-8")

    return write_folder(path, fill)


def read_bundle(path: str | os.PathLike[str]) -> IntegerNetwork:
    """The network of a bundle, once every sum of its files is right and it gives its golden vectors again.

    Raises
    ------
    DataError
        If a file is missing, damaged, or not what the manifest says.
    """
    return _read(path)[0]


def golden_codes(path: str | os.PathLike[str]) -> Tensor:
    """Input codes [T, N, ...] of a bundle's golden vectors; errors as `read_bundle`."""
    return _read(path)[1]


def _read(path: str | os.PathLike[str]) -> tuple[IntegerNetwork, Tensor]:
    """The network, and the codes that its golden vectors begin with."""
    folder = Path(path)
    try:
        manifest = read_json(folder / "manifest.json")
        if manifest.get("format") != FORMAT or manifest.get("version") != VERSION:
            raise DataError(f"{folder} is no bundle of version {VERSION}; write it again")
        if manifest.pop("sha256", None) != sum_of(manifest):
            raise DataError(f"{folder / 'manifest.json'} is damaged: its sha256 is another; write the bundle again")
        reader = _Reader(folder)
        network = _network(manifest, reader)
        # bundles of earlier versions do not say it
        note_spec_(network, (spec := manifest.get("spec")) and _spec(spec, folder))
        codes = _check_golden(network, manifest["golden"], reader, folder)
    except OSError as error:
        raise DataError(
            f"cannot read {error.filename or folder}: {error.strerror or error}; a bundle is a folder with "
            "manifest.json and every file that this names"
        ) from error
    except (ArithmeticError, AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{folder} is damaged: {error!r}; write it again") from error
    return network, codes


def sum_of(manifest: dict[str, Any]) -> str:
    """sha256 of a manifest without its own: as JSON with sorted keys and no spaces, ASCII."""
    rest = {key: value for key, value in manifest.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


class _Writer:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(self, name: str, values: Tensor | None) -> dict[str, Any] | None:
        """Write an array and describe it."""
        if values is None:
            return None
        array = values.detach().cpu().numpy()
        about: dict[str, Any] = {"file": f"{name}.npy", "shape": list(array.shape)}
        if array.dtype.kind == "f":
            stored = array.astype(np.float64)
        else:
            stored, about["bits"], about["least"] = pack(array)
        buffer = io.BytesIO()
        np.save(buffer, stored, allow_pickle=False)
        (self.folder / about["file"]).write_bytes(buffer.getvalue())
        return about | {"sha256": hashlib.sha256(buffer.getvalue()).hexdigest()}


class _Stored(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a manifest says of an array; `bits` None: float64."""

    file: str
    shape: tuple[Annotated[int, msgspec.Meta(ge=0)], ...]
    sha256: str
    bits: Annotated[int, msgspec.Meta(ge=1, le=64)] | None = None
    least: Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)] = 0


class _Reader:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def get(self, about: dict[str, Any] | None) -> Any:
        """The array that a manifest describes, as a tensor; None for None."""
        if about is None:
            return None
        stored = msgspec.convert(about, _Stored)
        path, size = self.folder / stored.file, math.prod(stored.shape)
        if Path(stored.file).name != stored.file:
            raise DataError(f"{self.folder}: {stored.file!r} is no file of the folder")
        content = read_file(path, _MOST)
        if hashlib.sha256(content).hexdigest() != stored.sha256:
            raise DataError(f"{path} is damaged: its sha256 is not the manifest's; write the bundle again")
        try:
            array = np.load(io.BytesIO(content), allow_pickle=False)
        except Exception as error:
            # numpy raises whatever a damaged header leads it to
            raise DataError(f"{path} is no .npy file: {error}; write the bundle again") from error
        held = (size,) if stored.bits is None else (-(-size * stored.bits // 8),)
        kind = np.float64 if stored.bits is None else np.uint8
        if array.dtype != kind or array.reshape(-1).shape != held:
            of = f"of {stored.bits} bits" if stored.bits is not None else "as float64"
            raise DataError(f"{path} does not hold {size:,} numbers {of}; write it again")
        if stored.bits is not None:
            array = unpack(array.reshape(-1), stored.bits, stored.least, stored.shape)
        return torch.from_numpy(array.reshape(stored.shape).copy())


def _described(network: IntegerNetwork, writer: _Writer) -> dict[str, Any]:
    layers = [_layer(index, name, part, writer) for index, (name, part) in enumerate(network.populations.items())]
    links = [_connection(index, connection, writer) for index, connection in enumerate(network.connections)]
    encoder, readout = network.encoder, network.readout
    return {
        "input": {
            "shape": list(network.input_shape),
            "encoder": encoder and dataclasses.asdict(encoder),
        },
        "layers": layers,
        "connections": links,
        "readout": readout and {"bias": writer.add("readout.bias", readout.bias), "scale": readout.scale},
        "latency": network.latency,
        "most_steps": network.most_steps,
        "spec": None if (spec := spec_of(network)) is None else spec.to_dict(),
        "notes": {name: list(said) for name, said in network.notes.items()},
    }


_NUMBERS = ("threshold", "bias", "decay", "synapse_decay", "floor", "subtract", "scale")


def _layer(index: int, name: str, part: Population, writer: _Writer) -> dict[str, Any]:
    table = part.table
    return {
        "name": name,
        "shape": list(part.shape),
        "reset": part.reset_to,
        "output": part.output,
        "rules": msgspec.to_builtins(part.rules),
        **{key: writer.add(f"layer{index}.{key}", getattr(part, key)) for key in _NUMBERS},
        "table": table and {
            "placement": table.placement,
            "edges": writer.add(f"layer{index}.edges", table.edges),
            "levels": writer.add(f"layer{index}.levels", table.levels),
        },
    }  # fmt: skip


_GEOMETRY = ("stride", "padding", "dilation")


def _connection(index: int, connection: Connection, writer: _Writer) -> dict[str, Any]:
    return {
        "sources": list(connection.sources),
        "target": connection.target,
        "kind": connection.kind,
        "pools": [{"size": pool.size, "stride": pool.stride, "padding": pool.padding} for pool in connection.pools],
        **{key: getattr(connection, key) for key in _GEOMETRY},
        "groups": connection.groups,
        "delay": connection.delay,
        "weight": writer.add(f"connection{index}.weight", connection.weight),
        "shift": writer.add(f"connection{index}.shift", torch.as_tensor(connection.shift)),
        "factor": writer.add(f"connection{index}.factor", connection.factor),
        "step": writer.add(f"connection{index}.step", connection.step),
    }


def _golden(network: IntegerNetwork, codes: Tensor, writer: _Writer) -> dict[str, Any]:
    trace = network.run(codes, states=True)
    layers = {
        name: {
            "spikes": writer.add(f"golden.spikes{index}", trace.spikes[name]),
            "membranes": writer.add(f"golden.membranes{index}", trace.membranes[name]),
            "currents": writer.add(f"golden.currents{index}", _currents(network, trace, name)),
        }
        for index, name in enumerate(network.order)
    }
    inputs = writer.add("golden.inputs", codes.contiguous())
    return {"inputs": inputs, "layers": layers, "readout": writer.add("golden.readout", trace.readout)}


def _currents(network: IntegerNetwork, trace: Trace, name: str) -> Tensor | None:
    """Of neurons that keep one."""
    return trace.currents[name] if network.populations[name].rules.synapse != "none" else None


def _check_golden(network: IntegerNetwork, golden: dict[str, Any], reader: _Reader, folder: Path) -> Tensor:
    """The codes that go in, once what comes out is what it was."""
    codes = reader.get(golden["inputs"])
    assert codes is not None
    trace = network.run(codes, states=True)
    if golden["layers"].keys() != set(network.order):
        raise DataError(f"{folder}: its golden vectors are of other layers than the network's; write it again")
    pairs: list[tuple[str, Tensor | None, Tensor | None]] = [("readout", reader.get(golden["readout"]), trace.readout)]
    for name, about in golden["layers"].items():
        pairs.append((f"{name}: spikes", reader.get(about["spikes"]), trace.spikes[name]))
        pairs.append((f"{name}: membranes", reader.get(about["membranes"]), trace.membranes[name]))
        # bundles of earlier versions hold none
        if "currents" in about:
            pairs.append((f"{name}: currents", reader.get(about["currents"]), _currents(network, trace, name)))
    for what, expected, found in pairs:
        same = expected is found is None or (
            expected is not None and found is not None and torch.equal(expected, found)
        )
        if not same:
            raise DataError(f"{folder}: the network does not give its golden vectors ({what}); write it again")
    return codes


def _network(manifest: dict[str, Any], reader: _Reader) -> IntegerNetwork:
    _check_types(manifest, reader.folder)
    encoder, readout = manifest["input"]["encoder"], manifest["readout"]
    return IntegerNetwork(
        {about["name"]: _population(about, reader) for about in manifest["layers"]},
        [_read_connection(about, reader) for about in manifest["connections"]],
        tuple(manifest["input"]["shape"]),
        encoder=encoder and msgspec.convert(encoder, Encoder),
        readout=readout and Readout(reader.get(readout["bias"]), readout["scale"]),
        notes=manifest["notes"],
        latency=manifest["latency"],
        most_steps=manifest["most_steps"],
    )


def _spec(content: dict[str, Any], folder: Path) -> QuantSpec:
    try:
        return QuantSpec.from_dict(content)
    except SpecError as error:
        raise DataError(f"{folder}: the spec that it was quantized by: {error}") from error


def _check_types(manifest: dict[str, Any], folder: Path) -> None:
    """What golden vectors do not reach is what it should be."""
    kinds: tuple[tuple[str, Any], ...] = (
        ("latency", dict[str, int]), ("most_steps", int | None), ("notes", dict[str, list[str]]),
    )  # fmt: skip
    for key, kind in kinds:
        try:
            msgspec.convert(manifest[key], kind)
        except msgspec.ValidationError as error:
            raise DataError(f"{folder}: {key} of its manifest: {error}; write it again") from error


def _population(about: dict[str, Any], reader: _Reader) -> Population:
    table = about["table"]
    try:
        rules = msgspec.convert(about["rules"], NeuronRules)
    except (msgspec.ValidationError, SpecError) as error:
        raise DataError(f"{reader.folder}: rules of {about['name']!r}: {error}") from error
    return Population(
        rules,
        tuple(about["shape"]),
        reset=about["reset"],
        output=about["output"],
        table=table and StateTable(table["placement"], reader.get(table["edges"]), reader.get(table["levels"])),
        **{key: reader.get(about[key]) for key in _NUMBERS},
    )


def _read_connection(about: dict[str, Any], reader: _Reader) -> Connection:
    pools = [SumPool(p["size"] and tuple(p["size"]), tuple(p["stride"]), tuple(p["padding"])) for p in about["pools"]]
    geometry = {key: tuple(about[key]) for key in _GEOMETRY}
    return Connection(
        sources=tuple(about["sources"]), target=about["target"], kind=about["kind"], pools=tuple(pools),
        groups=about["groups"], delay=about["delay"], weight=reader.get(about["weight"]),
        shift=reader.get(about["shift"]), step=reader.get(about["step"]), factor=reader.get(about["factor"]),
        **geometry,
    )  # fmt: skip
