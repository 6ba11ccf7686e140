"""Forms of convolutions and pools that a chip does not have: strides, sides, groups, dilations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from torch import nn

from isofire.integer.chip_layer import ChipLayer
from isofire.integer.hardware import HardwareSpec
from isofire.integer.limit_names import Limit
from isofire.integer.refusals import Refusal


def other_forms(
    spec: HardwareSpec,
    layers: Sequence[ChipLayer],
    maps: Mapping[str, tuple[int, ...]],
    kernels: Mapping[str, tuple[int, int]],
) -> list[Refusal]:
    """A refusal for each that the limits `square`, `stride`, `pool`, `groups` and `dilation` leave out.

    `maps`: layer -> shape of what arrives before its pools. `kernels`: its height and width; a dense layer's are those
    of its map.
    """
    return [
        Refusal(layer.stage.layer_name, "limits", says, cure)
        for layer in layers
        for says, cure in (
            *_of_kernel(spec, layer, *kernels[layer.name]),
            *_of_convolution(spec, layer),
            *_of_pools(spec, layer, maps[layer.name]),
        )
    ]


def _of_kernel(spec: HardwareSpec, layer: ChipLayer, height: int, width: int) -> Iterator[tuple[str, str]]:
    if "square" in spec.limits and height != width:
        if isinstance(layer.stage.layer, nn.Conv2d):
            most = max(height, width)
            yield f"a kernel of {height}x{width}, the chip's are square", f"fill it up with zeros to {most}x{most}"
        else:
            says = f"a dense layer on a map of {height}x{width}, for the chip a kernel of that size, which is square"
            yield says, "cut inputs, or fill them up with zeros, to a square"


def _of_convolution(spec: HardwareSpec, layer: ChipLayer) -> Iterator[tuple[str, str]]:
    if not isinstance(layer.stage.layer, nn.Conv2d):
        return
    limits, about = spec.limits, layer.stage.geometry()
    if "stride" in limits:
        down, right = about["stride"]
        if down != right or not _has(limits["stride"], down):
            says = f"a stride of {_sides(down, right)}, the chip's are {_shown(limits['stride'])}"
            yield says, "train with one of these strides"
    if "groups" in limits and not _has(limits["groups"], about["groups"]):
        yield (
            f"{about['groups']} groups of channels, the chip's kernels take all channels",
            "write it as a convolution of one group, with zeros between groups",
        )
    if "dilation" in limits and not all(_has(limits["dilation"], side) for side in about["dilation"]):
        yield (
            f"a dilation of {_sides(*about['dilation'])}, the chip's is {_shown(limits['dilation'])}",
            "write it as a larger kernel with zeros between",
        )


def _of_pools(spec: HardwareSpec, layer: ChipLayer, shape: tuple[int, ...]) -> Iterator[tuple[str, str]]:
    if "pool" not in spec.limits:
        return
    known = spec.limits["pool"]
    for pool in layer.stage.pools:
        size = pool.sum.size or shape[-2:]
        stride, padding = (size if pool.sum.size is None else pool.sum.stride), pool.sum.padding
        if size[0] != size[1] or stride != size or any(padding) or not _has(known, size[0]):
            says = f"a pool of {_sides(*size)} with stride {_sides(*stride)}" + f", padded by {padding}" * any(padding)
            yield (
                f"{says}, the chip's are square, of {_shown(known)} a side, side by side",
                "pool by one of these, or let the next layer's weights do it",
            )


def _has(known: Limit, value: int) -> bool:
    return value <= known if isinstance(known, int) else value in known


def _sides(height: int, width: int) -> str:
    return f"{height}" if height == width else f"{height}x{width}"


def _shown(known: Limit) -> str:
    return f"at most {known}" if isinstance(known, int) else ", ".join(map(str, known))
