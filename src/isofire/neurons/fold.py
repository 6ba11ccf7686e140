"""Stateless layers on [T, N, ...]: time folded into the batch."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from isofire.errors import SpecError


class StepLayer(nn.Module):
    """Base of layers that see the time axis: they are handed [T, N, ...] unfolded."""


def apply_per_step(layer: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """`layer` on every step at once: [T, N, ...] -> [T, N, ...], seen by the layer as [T * N, ...].

    A `StepLayer` sees [T, N, ...] itself.
    """
    if isinstance(layer, StepLayer):
        return layer(x)
    return layer(x.flatten(0, 1)).unflatten(0, x.shape[:2])


class PerStep(nn.Sequential):
    """Stateless modules (convolution, normalisation, pooling, linear, flatten) applied to every step of [T, N, ...].

    Examples
    --------
    >>> import torch
    >>> PerStep(nn.Conv2d(3, 8, 3), nn.Flatten())(torch.zeros(4, 2, 3, 8, 8)).shape
    torch.Size([4, 2, 288])
    """

    def forward(self, input: Tensor) -> Tensor:
        for layer in self:
            input = apply_per_step(layer, input)
        return input


class Repeat(nn.Module):
    """Direct coding: a static input [N, ...] presented at each of `T` steps, [T, N, ...], without a copy."""

    def __init__(self, T: int) -> None:
        super().__init__()
        if T < 1:
            raise SpecError(f"T must be at least 1 step, got {T}")
        self.T = T

    def forward(self, x: Tensor) -> Tensor:
        return x.unsqueeze(0).expand(self.T, *x.shape)

    def extra_repr(self) -> str:
        return f"T={self.T}"
