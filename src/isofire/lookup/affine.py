"""What lies around a layer's sums: the convolution's geometry, and the map from a sum to a neuron's input."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Affine:
    """From a sum to a neuron's input: sum * gain + shift, float64 [out]; `normed`: with a batch norm in it."""

    gain: Tensor
    shift: Tensor
    normed: bool = False

    def normalised(
        self, mean: Tensor, var: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
    ) -> Affine | None:
        """With a batch norm of running statistics behind it; None if there is one already."""
        if self.normed or mean.shape != self.gain.shape:
            return None
        scale = torch.rsqrt(var.double() + eps)
        scale = scale if weight is None else scale * weight.detach().double()
        shift = (self.shift - mean.double()) * scale
        return Affine(self.gain * scale, shift if bias is None else shift + bias.detach().double(), True)

    def floats(self, divisor: int) -> tuple[Tensor, Tensor]:
        """Scale and shift in float32, for counts that are to be divided by `divisor`."""
        return (self.gain / divisor).float().contiguous(), self.shift.float().contiguous()


@dataclass(frozen=True)
class Geometry:
    """A layer as a convolution of maps: kernel, stride, padding and dilation, each of height and width."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    pad: tuple[int, int]
    dilation: tuple[int, int]

    @classmethod
    def of(cls, layer: nn.Conv2d) -> Geometry:
        """That of a convolution whose padding is a size."""
        assert not isinstance(layer.padding, str)
        return cls(*((pair[0], pair[1]) for pair in (layer.kernel_size, layer.stride, layer.padding, layer.dilation)))

    def out_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the output."""
        first, second = (
            (size + 2 * pad - dilation * (kernel - 1) - 1) // stride + 1
            for size, kernel, stride, pad, dilation in zip(
                (height, width), self.kernel, self.stride, self.pad, self.dilation, strict=True
            )
        )
        return first, second
