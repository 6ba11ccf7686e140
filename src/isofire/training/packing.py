"""Weights on few levels as packed codes in a file, bit for bit, whatever method put them there.

A tensor `NAME` of float32 [C, ...] whose channels hold at most 2^8 different values each becomes three:
`packed/NAME/levels` [C, L], each channel's values (the last repeated where it has fewer); `packed/NAME/codes`, which of
them each place holds, in as few bits as L needs, as `isofire.packed_bits` packs them; and `packed/NAME/shape`. Tensors
that would not be smaller so stay as they are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from isofire.errors import CheckpointError
from isofire.packed_bits import pack, unpack

_PREFIX = "packed/"
_MOST_LEVELS = 256
_PARTS = ("codes", "levels", "shape")


class DamagedError(CheckpointError):
    """Parts of a packed tensor are missing, or do not fit each other."""


def packed(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors (on the CPU) as a file holds them."""
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        parts = _packed(tensor)
        found |= {name: tensor} if parts is None else {f"{_PREFIX}{name}/{part}": t for part, t in parts.items()}
    return found


def unpacked(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What `packed` was given.

    Raises
    ------
    DamagedError
        If parts are missing, or do not fit each other: before they take memory.
    """
    found = {name: tensor for name, tensor in tensors.items() if not name.startswith(_PREFIX)}
    for name in _names(tensors):
        codes, levels, shape = (tensors[f"{_PREFIX}{name}/{part}"] for part in _PARTS)
        size = _shape(name, codes.shape, levels.shape, shape)
        if codes.dtype != torch.uint8 or levels.dtype != torch.float32:
            raise DamagedError(f"the parts of {name} have other types")
        index = unpack(codes.numpy(), _bits(levels.shape[1]), 0, (len(levels), math.prod(size[1:])))
        if index.size and int(index.max()) >= levels.shape[1]:
            raise DamagedError(f"codes of {name} name levels that are not there")
        found[name] = levels.gather(1, torch.from_numpy(index)).view(size)
    return found


def count(shapes: Mapping[str, tuple[int, ...]], packed_shapes: Mapping[str, Tensor]) -> int:
    """Values that a file holds once it is unpacked: `shapes` of all tensors, and those named `packed/NAME/shape`."""
    plain = sum(math.prod(shape) for name, shape in shapes.items() if not name.startswith(_PREFIX))
    for name in _names(shapes):
        codes, levels, _ = (shapes[f"{_PREFIX}{name}/{part}"] for part in _PARTS)
        plain += math.prod(_shape(name, codes, levels, packed_shapes[f"{_PREFIX}{name}/shape"]))
    return plain


def is_packed_shape(name: str) -> bool:
    """Whether a tensor of a file says a packed one's shape."""
    return name.startswith(_PREFIX) and name.endswith("/shape")


def _names(tensors: Mapping[str, object]) -> list[str]:
    inside = [name.removeprefix(_PREFIX) for name in tensors if name.startswith(_PREFIX)]
    names = sorted({name.rpartition("/")[0] for name in inside})
    for name in names:
        if missing := [part for part in _PARTS if f"{_PREFIX}{name}/{part}" not in tensors]:
            raise DamagedError(f"{name} lacks its {missing[0]}")
    return names


def _shape(name: str, codes: tuple[int, ...], levels: tuple[int, ...], shape: Tensor) -> tuple[int, ...]:
    size = tuple(shape.tolist()) if shape.dtype == torch.int64 and shape.ndim == 1 else ()
    good = len(size) > 1 and min(size) > 0 and len(levels) == 2 and levels[0] == size[0] and levels[1] <= _MOST_LEVELS
    if not good or tuple(codes) != (math.ceil(math.prod(size) * _bits(levels[1]) / 8),):
        raise DamagedError(f"the parts of {name} do not fit each other")
    return size


def _bits(levels: int) -> int:
    return max(1, (levels - 1).bit_length())


def _packed(tensor: Tensor) -> dict[str, Tensor] | None:
    if tensor.dtype != torch.float32 or tensor.ndim < 2 or not tensor.numel():
        return None
    # values are told apart by their bits, so that -0.0 stays what it is
    rows = tensor.contiguous().flatten(1).numpy().view(np.int32)
    most = min(_MOST_LEVELS, rows.shape[1])
    levels, index = [], np.empty(rows.shape, dtype=np.uint8)
    for channel, row in enumerate(rows):
        values, index[channel] = np.unique(row, return_inverse=True)
        if len(values) > most or (len(values) > 16 and 4 * len(values) > 3 * rows.shape[1]):
            return None
        levels.append(values)
    wide = max(map(len, levels))
    table = np.stack([np.pad(values, (0, wide - len(values)), mode="edge") for values in levels])
    codes, _, _ = pack(index)
    if codes.nbytes + table.nbytes >= rows.nbytes:
        return None
    floats = torch.from_numpy(table.view(np.float32).copy())
    return {"codes": torch.from_numpy(codes), "levels": floats, "shape": torch.tensor(tensor.shape)}
