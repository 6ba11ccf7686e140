"""Stateless layers on [T, N, ...]: time folded into the batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor, nn

from isofire.errors import ModelError, SpecError


class Stateful(nn.Module):
    """Base of neurons, whose states run from step to step: folded, they would run from image to image."""


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

    Raises
    ------
    ModelError
        If one of them has states, as neurons: it would take an image for the step after another image.
    """

    def __init__(self, *layers: Any) -> None:
        super().__init__(*layers)
        for name, module in self.folding():
            if isinstance(module, Stateful | StepLayer):
                raise folded(name, module)

    def folding(self) -> Iterator[tuple[str, nn.Module]]:
        """Every module that sees steps and images as one axis: all but a `StepLayer` of its own and what that holds."""
        for name, layer in self.named_children():
            if not isinstance(layer, StepLayer):
                yield from layer.named_modules(prefix=name)

    def forward(self, input: Tensor) -> Tensor:
        for layer in self:
            input = apply_per_step(layer, input)
        return input


def folded(name: str, module: nn.Module) -> ModelError:
    """The error for a layer with states inside a `PerStep`, whatever has put it there."""
    return ModelError(
        f"{name!r} ({type(module).__name__}) lies inside a PerStep, which folds steps and images into one axis, so "
        "that its states would run from image to image; put it beside: PerStep(layer), neuron, PerStep(layer)"
    )


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
