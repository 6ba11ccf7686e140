"""The inputs that each weight of a convolution or linear layer is multiplied with."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from isofire.errors import SpecError
from isofire.quantization.by_firing.trace import Call

KINDS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
# samples unfolded at a time: a 3x3 convolution's patches take nine times its input
_AT_ONCE = 64


class Moments(NamedTuple):
    """What a layer's input patches x are like, for each of its groups of channels; K weights make an output.

    Parameters
    ----------
    total
        Sum of x: `[groups, K]` float64.
    squares
        Sum of x x^T: `[groups, K, K]` float64.
    rows
        How many patches were summed.
    """

    total: Tensor
    squares: Tensor
    rows: int

    @property
    def centred(self) -> Tensor:
        """Sum of (x - mean) (x - mean)^T: `[groups, K, K]` float64."""
        return self.squares - self.total.unsqueeze(2) * self.total.unsqueeze(1) / max(1, self.rows)


def moments(layer: nn.Module, calls: Iterable[Call]) -> Moments:
    """Moments of the input patches of a layer's calls.

    Raises
    ------
    SpecError
        If the layer is none of `KINDS`.
    """
    if not isinstance(layer, KINDS):
        names = ", ".join(kind.__name__ for kind in KINDS)
        raise SpecError(f"compensated rounding works on {names}, got {type(layer).__name__}; take another method")
    axes = 1 if isinstance(layer, nn.Linear) else 1 + len(layer.kernel_size)
    total = squares = torch.zeros((), dtype=torch.float64)
    rows = 0
    for call in calls:
        samples = call.input.detach().float()
        samples = samples.reshape(-1, *samples.shape[samples.ndim - axes :])
        for part in samples.split(_AT_ONCE):
            seen = patches(layer, part)
            squares = squares.to(seen.device) + torch.bmm(seen.mT, seen).double()
            total = total.to(seen.device) + seen.sum(1, dtype=torch.float64)
            rows += seen.shape[1]
    return Moments(total, squares, rows)


def patches(layer: nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d, inputs: Tensor) -> Tensor:
    """What each output of the layer sees: `[groups, rows, K]`, in the order of its weight's `flatten(1)`.

    Parameters
    ----------
    inputs
        `[N, C_in, ...]` of a convolution, `[N, features]` of a linear layer.
    """
    if isinstance(layer, nn.Linear):
        return inputs.unsqueeze(0)
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    x = F.pad(inputs, layer._reversed_padding_repeated_twice, mode)
    space = len(layer.kernel_size)
    for axis, (size, stride, dilation) in enumerate(zip(layer.kernel_size, layer.stride, layer.dilation, strict=True)):
        x = x.unfold(2 + axis, (size - 1) * dilation + 1, stride)[..., ::dilation]
    # [N, groups, C / groups, *out, *kernel] -> [groups, N, *out, C / groups, *kernel]
    x = x.unflatten(1, (layer.groups, -1))
    x = x.permute(1, 0, *range(3, 3 + space), 2, *range(3 + space, 3 + 2 * space))
    return x.reshape(layer.groups, -1, layer.in_channels // layer.groups * math.prod(layer.kernel_size))
