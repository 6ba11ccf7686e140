"""The compiled look-ups behind a typed Python face; absent where the package was installed without a compiler."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from isofire.lookup.tables import RUN
from isofire.neurons.native import compiled, require_version

LANES = 32
"""Images that are looked up at once."""
ISAS = ("portable", "avx2", "avx512", "neon")
"""Instruction sets, by their numbers in _layout.h."""

_P = ctypes.c_void_p
"""Pointers are given as addresses: making one of a type takes a microsecond, and a layer has ten."""


class Neurons(ctypes.Structure):
    """Mirrors `struct Neurons` of _layout.h, field by field."""

    _fields_ = (
        *((name, ctypes.c_int32) for name in ("charge", "hard_reset", "placement", "state_rows", "level_count", "pad")),
        *((name, ctypes.c_float) for name in ("tau", "threshold", "reset", "k_min", "k_max", "spare")),
        *((name, _P) for name in ("scale", "shift", "origin", "step", "edges", "levels")),
    )


class Layer(ctypes.Structure):
    """Mirrors `struct Layer`."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("blocks", "steps", "in_height", "in_width", "in_groups")),
        *((name, ctypes.c_int64) for name in ("out_height", "out_width", "out_channels")),
        *((name, ctypes.c_int64) for name in ("kernel_height", "kernel_width", "stride_y", "stride_x")),
        *((name, ctypes.c_int64) for name in ("pad_y", "pad_x", "dilation_y", "dilation_x", "streams", "passes")),
        *((name, ctypes.c_int32) for name in ("high_factor", "threads", "isa", "together")),
        ("inputs", ctypes.POINTER(_P)),
        ("tables", _P),
        ("runs", _P),
        ("pass_runs", _P),
        ("neurons", Neurons),
        ("spikes", _P),
    )


class Direct(ctypes.Structure):
    """Mirrors `struct Direct`."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("images", "steps", "maps", "channels", "height", "width")),
        *((name, ctypes.c_int64) for name in ("step_t", "step_n", "step_c", "step_y", "step_x")),
        *((name, ctypes.c_int64) for name in ("out_height", "out_width", "out_channels")),
        *((name, ctypes.c_int64) for name in ("kernel_height", "kernel_width", "stride_y", "stride_x")),
        *((name, ctypes.c_int64) for name in ("pad_y", "pad_x", "dilation_y", "dilation_x")),
        *((name, ctypes.c_int32) for name in ("threads", "isa")),
        *((name, _P) for name in ("inputs", "weights")),
        ("neurons", Neurons),
        ("spikes", _P),
    )


class Tiling(ctypes.Structure):
    """Mirrors `struct Tiling` of _maps.h."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("inner", "images", "height", "width")),
        *((name, ctypes.c_int64) for name in ("from_rows", "from_columns", "from_height", "from_width")),
        *((name, ctypes.c_int64) for name in ("rows", "columns", "tile_height", "tile_width")),
        *((name, ctypes.c_int64) for name in ("step_y", "step_x", "top", "left")),
        *((name, _P) for name in ("source", "to")),
    )


class Map(ctypes.Structure):
    """Mirrors `struct Map` of _maps.h."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("steps", "images", "channels", "height", "width")),
        *((name, ctypes.c_int64) for name in ("step_t", "step_n", "step_c", "step_y", "step_x")),
        *((name, ctypes.c_int32) for name in ("streams", "threads", "share", "pad")),
        ("values", _P),
        ("packed", ctypes.POINTER(_P)),
    )


@cache
def library() -> ctypes.CDLL | None:
    """The look-ups, or None if they were not built (`isofire doctor` tells); ImportError if of another version."""
    lib = compiled(Path(__file__).with_name("_tables"))
    if lib is not None:
        lib.isofire_lookup_sizes.restype = ctypes.c_int64
        lib.isofire_lookup_isa.restype = ctypes.c_int32
        sizes = [lib.isofire_lookup_sizes(ctypes.c_int64(which)) for which in range(5)]
        require_version(lib, sizes == [*map(ctypes.sizeof, (Layer, Direct, Map)), RUN.itemsize, ctypes.sizeof(Tiling)])
    return lib


def best() -> str | None:
    """The instruction set that is taken: the best that library and processor know; None without a library."""
    lib = library()
    return None if lib is None else ISAS[lib.isofire_lookup_isa()]


def known() -> tuple[str, ...]:
    """The instruction sets that library and processor know, the best last; none without a library."""
    found = best()
    if found is None:
        return ()
    return ("portable", found) if found == "neon" else ISAS[: 1 + ISAS.index(found)]


Reads = Sequence[tuple[str, int | None, Tensor]]
"""Fields of a description, the place in them if they are arrays of pointers, and the tensors that they point to."""


class Tape(TorchDispatchMode):
    """Is told of all calls of the look-ups while it is entered, and of what torch does between them."""

    def called(
        self, run: Callable, problem: Any, reads: Reads, written: Sequence[Tensor], kept: Sequence[Tensor]
    ) -> None:
        """Of `run(problem)`, which filled `written`; `kept` is the memory of constants."""
        raise NotImplementedError

    def finite(self, x: Tensor) -> bool:
        """As `finite`."""
        raise NotImplementedError

    def refuse(self, reason: str) -> None:
        """Of what it cannot be told."""
        raise NotImplementedError


def tape() -> Tape | None:
    """The tape that is entered, if it alone is."""
    if torch._C._len_torch_dispatch_stack() != 1:
        return None
    mode = torch._C._get_dispatch_stack_at(0)
    return mode if isinstance(mode, Tape) else None


def finite(x: Tensor) -> bool:
    """Whether all values are finite."""
    listening = tape()
    return bool(x.isfinite().all()) if listening is None else listening.finite(x)


def run(layer: Layer | Direct, reads: Sequence[Tensor], spikes: Tensor, kept: Sequence[Tensor]) -> None:
    """Fill `spikes`, to which `layer` points as it does to what it reads and to constants that are `kept`."""
    lib = library()
    assert lib is not None
    if isinstance(layer, Layer):
        layer.inputs, call = pointers(reads), lib.isofire_lookup_layer
    else:
        layer.inputs, call = floats(reads[0]), lib.isofire_lookup_direct
    layer.spikes = bytes_(spikes)
    places = range(len(reads)) if isinstance(layer, Layer) else (None,)
    _call(call, layer, [("inputs", *each) for each in zip(places, reads, strict=True)], (spikes,), kept)


def _call(run: Callable, problem: Any, reads: Reads, written: Sequence[Tensor], kept: Sequence[Tensor] = ()) -> None:
    run(ctypes.byref(problem))
    if (listening := tape()) is not None:
        listening.called(run, problem, reads, written, kept)


def maps(images: int, height: int, width: int, steps: int, channels: int) -> Tensor:
    """Memory for a map of spikes: uint8 [blocks, H, W, T, C / 4, 32]."""
    return torch.empty((-(-images // LANES), height, width, steps, -(-channels // 4), LANES), dtype=torch.uint8)


def pack(values: Tensor, streams: int) -> tuple[Tensor, ...]:
    """Whole numbers [T, N, C, H, W], 0 to `streams`, as that many maps of spikes: uint8 [blocks, H, W, T, C / 4, 32].

    Stream s has a spike where a value is above s.
    """
    steps, images, channels, height, width = values.shape
    packed = tuple(maps(images, height, width, steps, channels) for _ in range(streams))
    _convert("isofire_lookup_pack", values, packed)
    return packed


def unpack(packed: tuple[Tensor, ...], images: int, channels: int) -> Tensor:
    """The sum of maps of spikes, float32 [T, N, C, H, W] in channels_last order."""
    _, height, width, steps, *_ = packed[0].shape
    values = torch.empty(steps, images, height, width, channels).permute(0, 1, 4, 2, 3)
    _convert("isofire_lookup_unpack", values, packed)
    return values


def totals(packed: tuple[Tensor, ...], images: int, channels: int, share: int = 1) -> Tensor:
    """Spikes over each whole map, float32 [T, N, C, 1, 1]; `share`: tiles of an image, 32 at most of all images."""
    values = torch.empty(packed[0].shape[3], images, channels, 1, 1)
    _convert("isofire_lookup_totals", values, packed, packed[0].shape[1:3], share)
    return values


def over_time(spikes: Tensor, images: int, channels: int) -> Tensor:
    """Spikes of each neuron over T <= 255 steps, uint8 [N, C, H, W], of a map [blocks, H, W, T, C / 4, 32]."""
    blocks, height, width, steps, *_ = spikes.shape
    counts = torch.empty(blocks, height, width, channels, LANES, dtype=torch.uint8)
    lib = library()
    assert lib is not None
    places, threads = ctypes.c_int64(blocks * height * width), ctypes.c_int32(torch.get_num_threads())
    sizes = ctypes.c_int64(steps), ctypes.c_int64(channels)
    lib.isofire_lookup_over_time(_P(bytes_(spikes)), places, *sizes, threads, _P(bytes_(counts)))
    return counts.permute(0, 4, 3, 1, 2).reshape(blocks * LANES, channels, height, width)[:images]


def retile(tiling: Tiling, source: Tensor, to: Tensor) -> None:
    """Fill `to`."""
    lib = library()
    assert lib is not None
    tiling.source, tiling.to = bytes_(source), bytes_(to)
    _call(lib.isofire_lookup_retile, tiling, [("source", None, source)], (to,))


def pointers(maps: Sequence[Tensor]) -> ctypes.Array:
    """An array of pointers to the maps' bytes; the caller keeps the maps alive."""
    return (_P * len(maps))(*(each.data_ptr() for each in maps))


def floats(x: Tensor) -> int:
    """Address of a float32 tensor's memory; the caller keeps the tensor alive."""
    assert x.dtype == torch.float32
    return x.data_ptr()


def bytes_(x: Tensor) -> int:
    """Address of a uint8 tensor's memory; the caller keeps the tensor alive."""
    assert x.dtype == torch.uint8
    return x.data_ptr()


def _convert(name: str, values: Tensor, packed: tuple[Tensor, ...], size: tuple[int, ...] = (), share: int = 1) -> None:
    lib = library()
    assert lib is not None
    m = Map()
    m.steps, m.images, m.channels, m.height, m.width = *values.shape[:3], *(size or values.shape[3:])
    m.step_t, m.step_n, m.step_c, m.step_y, m.step_x = values.stride()
    m.streams, m.threads, m.share = len(packed), torch.get_num_threads(), share
    m.values = floats(values)
    m.packed = pointers(packed)
    if name == "isofire_lookup_pack":
        _call(getattr(lib, name), m, [("values", None, values)], packed)
    else:
        _call(getattr(lib, name), m, [("packed", *each) for each in enumerate(packed)], (values,))
