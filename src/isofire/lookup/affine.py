"""What lies around a layer's sums: the convolution's geometry, and the map from a sum to a neuron's input."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn


class Unchanged:
    """Whether some tensors are the same objects as they were, with the values that they had."""

    def __init__(self, *tensors: Tensor | None) -> None:
        self._tensors, self._versions = tensors, [version(tensor) for tensor in tensors]

    def holds(self, *tensors: Tensor | None) -> bool:
        """For these now."""
        # asked several times a layer and forward; of a tensor made in inference mode no version is known, then or now
        for now, then, known in zip(tensors, self._tensors, self._versions, strict=True):
            if now is not then or known is None or (now is not None and now._version != known):
                return False
        return True


def version(tensor: Tensor | None) -> int | None:
    """Counts a tensor's changes in place; None of a tensor made in inference mode, which is not counted."""
    return 0 if tensor is None else None if tensor.is_inference() else tensor._version


class Affine:
    """From a sum to a neuron's input: sum * gain + shift.

    Parameters
    ----------
    gain, shift
        Float64 [out].
    normed
        Whether a batch norm is in it.
    """

    def __init__(self, gain: Tensor, shift: Tensor, normed: bool = False) -> None:
        self.gain, self.shift, self.normed = gain, shift, normed
        self._normalised: tuple[Unchanged, float, Affine] | None = None
        self._floats: dict[int, tuple[Tensor, Tensor]] = {}

    def normalised(
        self, mean: Tensor, var: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
    ) -> Affine | None:
        """With a batch norm of running statistics behind it; None if there is one already."""
        if self.normed or mean.shape != self.gain.shape:
            return None
        known = self._normalised
        if known is not None and known[1] == eps and known[0].holds(mean, var, weight, bias):
            return known[2]
        scale = torch.rsqrt(var.double() + eps)
        scale = scale if weight is None else scale * weight.detach().double()
        shift = (self.shift - mean.double()) * scale
        found = Affine(self.gain * scale, shift if bias is None else shift + bias.detach().double(), True)
        self._normalised = Unchanged(mean, var, weight, bias), eps, found
        return found

    @cached_property
    def is_finite(self) -> bool:
        """Whether no input of a neuron can be infinite in float32, or no number."""
        return bool((self.gain.abs().max() < 1e28) & (self.shift.abs().max() < 1e36))

    def floats(self, divisor: int) -> tuple[Tensor, Tensor]:
        """Scale and shift in float32, for counts that are to be divided by `divisor`."""
        if divisor not in self._floats:
            self._floats[divisor] = (self.gain / divisor).float().contiguous(), self.shift.float().contiguous()
        return self._floats[divisor]


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

    def without_pad(self) -> Geometry:
        """The same for maps that hold their border already."""
        return Geometry(self.kernel, self.stride, (0, 0), self.dilation)

    def out_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the output."""
        first, second = (
            (size + 2 * pad - dilation * (kernel - 1) - 1) // stride + 1
            for size, kernel, stride, pad, dilation in zip(
                (height, width), self.kernel, self.stride, self.pad, self.dilation, strict=True
            )
        )
        return first, second
