"""Convolutions of real inputs, in float: their products are added in a fixed order, whatever the batch."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from isofire.lookup.affine import Affine, Geometry

MOST_PRODUCTS = 128
"""Products of an output, at most; beyond, torch's convolutions are much faster."""


def takes(layer: nn.Conv2d, x: Tensor) -> bool:
    """Whether the layer and its input are of the kind: few inputs an output, float32 on the CPU."""
    return (
        layer.groups == 1
        and not isinstance(layer.padding, str)
        and layer.padding_mode == "zeros"
        and layer.weight[0].numel() <= MOST_PRODUCTS
        and all(part.dtype == torch.float32 and part.device.type == "cpu" for part in (layer.weight, x))
        and x.ndim == 4
        and x.numel() > 0
        and x.shape[1] == layer.in_channels
        and min(Geometry.of(layer).out_size(*x.shape[2:])) > 0
    )


def inputs_of_neurons(geometry: Geometry, weight: Tensor, x: Tensor, affine: Affine) -> Tensor:
    """The products of a batch [M, C, H, W] added up in order, scaled and shifted: float32 [M, out, H, W]."""
    scale, shift = (part.view(-1, 1, 1) for part in affine.floats(1))
    return in_order(x, weight, geometry) * scale + shift


def in_order(x: Tensor, weight: Tensor, geometry: Geometry) -> Tensor:
    """A convolution [M, C, H, W] -> [M, out, H, W] whose products are added one by one: by channel, row and column."""
    (high, wide), (down, along) = geometry.kernel, geometry.stride
    top, left = geometry.pad
    height, width = geometry.out_size(*x.shape[2:])
    padded = F.pad(x, (left, left, top, top))
    sums = x.new_zeros(x.shape[0], weight.shape[0], height, width)
    for channel in range(x.shape[1]):
        for row in range(high):
            for column in range(wide):
                y, z = row * geometry.dilation[0], column * geometry.dilation[1]
                seen = padded[:, channel, None, y : y + down * height : down, z : z + along * width : along]
                sums += weight[:, channel, row, column].view(-1, 1, 1) * seen[..., :height, :width]
    return sums
