"""Convolutions as nodes of a graph.

nir's type check takes every kernel for a square and all channels for one group, and refuses to read a file with
others. They are written as squares of one group, with zeros where there are no weights, and read back as they were by
what the metadata say.
"""

from __future__ import annotations

import json
from typing import Any

import torch
from torch import Tensor, nn

import nir
from isofire.errors import ModelError
from isofire.nir.arrays import array_of, filled, sizes_of, tensor_of
from isofire.nir.convention import Convention
from isofire.nir.metadata import KEY, intact


def write_conv(name: str, module: Any, shape: tuple[int, ...], dt: float) -> Any:
    """The node of a convolution; see `isofire.nir.node_writing.node_of`."""
    if module.padding_mode != "zeros":
        raise ModelError(
            f"NIR pads with zeros, {name!r} with padding_mode={module.padding_mode!r}; use padding_mode='zeros'"
        )
    plane, side = isinstance(module, nn.Conv2d), max(module.kernel_size)
    starts = tuple(_start(name, module, axis, side) for axis in range(len(module.kernel_size)))
    about: dict[str, Any] = {} if module.bias is not None else {"bias": False}
    if module.groups > 1 or any(kernel != side for kernel in module.kernel_size):
        about["conv"] = {"kernel": list(module.kernel_size), "start": list(starts), "groups": module.groups}
    bias = torch.zeros(module.out_channels) if module.bias is None else module.bias

    def sizes(values: tuple[int, ...]) -> Any:
        return tuple(values) if plane else values[0]

    kind: Any = nir.Conv2d if plane else nir.Conv1d
    return kind(
        input_shape=sizes(shape[1:]),
        weight=array_of(_spread(module, starts, side)),
        stride=sizes(module.stride),
        padding="same" if module.padding == "same" else sizes(_padding(module, starts)),
        dilation=sizes(module.dilation),
        groups=1,
        bias=array_of(bias),
        metadata={KEY: json.dumps(about)} if about else {},
    )


def read_conv(name: str, node: Any, convention: Convention) -> nn.Module:
    """The convolution of a node, of the kernel and groups that it was written from."""
    weight, groups = tensor_of(node.weight), int(node.groups)
    axes = weight.ndim - 2
    dilation = sizes_of(node.dilation, axes)
    padding: Any = node.padding if isinstance(node.padding, str) else sizes_of(node.padding, axes)
    with intact(f"node {name!r}"):
        about = json.loads(node.metadata.get(KEY, "{}")).get("conv")
        if about is not None:
            starts, groups = tuple(map(int, about["start"])), int(about["groups"])
            weight = _cut(name, weight, starts, tuple(map(int, about["kernel"])), groups)
            if not isinstance(padding, str):
                padding = tuple(p - d * start for p, d, start in zip(padding, dilation, starts, strict=True))
                if min(padding) < 0:
                    raise ValueError(f"it was padded by {padding}")
    kind: Any = nn.Conv2d if isinstance(node, nir.Conv2d) else nn.Conv1d
    layer = kind(
        weight.shape[1] * groups,
        weight.shape[0],
        tuple(weight.shape[2:]),
        stride=sizes_of(node.stride, axes),
        padding=padding,
        dilation=dilation,
        groups=groups,
        dtype=torch.float32,
    )
    return filled(layer, weight, tensor_of(node.bias))


def _start(name: str, module: Any, axis: int, side: int) -> int:
    """Where the kernel begins in a square of `side` that gives as many outputs, at the same places."""
    kernel, dilation = module.kernel_size[axis], module.dilation[axis]
    if module.padding == "same":
        # torch pads the left by half of what a kernel spans, rounded down
        start, rest = divmod(dilation * (side - 1) // 2 - dilation * (kernel - 1) // 2, dilation)
    else:
        start, rest = divmod(side - kernel, 2)
    if rest:
        raise ModelError(
            f"nir's own type check takes every kernel for a square; that of {name!r}, {list(module.kernel_size)}, "
            "cannot be written as one with zeros around it, since its sides do not differ by an even number; use a "
            f"kernel of {side} x {side}, or of sides that do"
        )
    return start


def _padding(module: Any, starts: tuple[int, ...]) -> tuple[int, ...]:
    padding = (0,) * len(starts) if module.padding == "valid" else module.padding
    return tuple(p + d * start for p, d, start in zip(padding, module.dilation, starts, strict=True))


def _spread(module: Any, starts: tuple[int, ...], side: int) -> Tensor:
    """The weights [out, in of all groups, side, ...], zero where there are none."""
    weight = module.weight.detach()
    full = weight.new_zeros(weight.shape[0], module.in_channels, *(side for _ in starts))
    for rows, columns in _blocks(weight.shape[0], module.in_channels, module.groups):
        full[(rows, columns, *_window(starts, module.kernel_size))] = weight[rows]
    return full


def _cut(name: str, full: Tensor, starts: tuple[int, ...], kernel: tuple[int, ...], groups: int) -> Tensor:
    """The weights that `_spread` spread."""
    sides, channels = tuple(full.shape[2:]), tuple(full.shape[:2])
    fits = len(starts) == len(kernel) == len(sides) and 1 <= groups <= min(channels)
    fits = fits and not any(size % groups for size in channels)
    if not fits or not all(s >= 0 and 1 <= k <= side - s for s, k, side in zip(starts, kernel, sides, strict=True)):
        raise ValueError(f"a kernel {kernel} at {starts} in {groups} groups is no part of {list(full.shape)}")
    rest = full.clone()
    parts = []
    for rows, columns in _blocks(channels[0], channels[1], groups):
        place = rows, columns, *_window(starts, kernel)
        parts.append(full[place])
        rest[place] = 0.0
    if bool(rest.any()):
        raise ModelError(
            f"node {name!r} has weights where isofire's metadata there say that there are none, so one of them was "
            f"changed afterwards; delete the key {KEY!r} of the node's metadata to take its numbers"
        )
    return torch.cat(parts)


def _blocks(outputs: int, inputs: int, groups: int) -> list[tuple[slice, slice]]:
    """Outputs and inputs of each group."""
    rows, columns = outputs // groups, inputs // groups
    return [(slice(g * rows, (g + 1) * rows), slice(g * columns, (g + 1) * columns)) for g in range(groups)]


def _window(starts: tuple[int, ...], kernel: tuple[int, ...]) -> tuple[slice, ...]:
    return tuple(slice(start, start + size) for start, size in zip(starts, kernel, strict=True))
