"""Surrogate gradients: what replaces the derivative of the spike's step function in the backward pass.

The formulas are written so that nothing cancels far from the threshold, and the compiled kernels follow their order of
operations: their slopes agree to a relative 1e-6 at any distance, down to alpha * 2e-38, where float32 runs out.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from isofire.errors import SpecError


@dataclass(frozen=True)
class Surrogate(ABC):
    """Base of the surrogates; `alpha` is the sharpness, the peak slope is stated by each child.

    `code` is the surrogate's number in the compiled kernels, None for one that they do not know.
    """

    alpha: float
    code: ClassVar[int | None] = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.alpha) and self.alpha > 0):
            raise SpecError(
                f"surrogate alpha must be positive and finite, got {self.alpha}; the usual values are 2 to 4"
            )

    @abstractmethod
    def slope(self, distance: Tensor) -> Tensor:
        """d spike / d h at `distance` = h - v_threshold, element by element."""


@dataclass(frozen=True)
class Sigmoid(Surrogate):
    """alpha * s * (1 - s) with s = sigmoid(alpha * distance); peak alpha / 4.

    Computed as alpha * e / (1 + e)^2 with e = exp(-alpha * |distance|): 1 - s has no digits left where s is near 1.
    """

    alpha: float = 4.0
    code: ClassVar[int | None] = 0

    def slope(self, distance: Tensor) -> Tensor:
        e = torch.exp(-self.alpha * distance.abs())
        return self.alpha * e / ((1.0 + e) * (1.0 + e))


@dataclass(frozen=True)
class ATan(Surrogate):
    """alpha / 2 / (1 + (pi / 2 * alpha * distance)^2); peak alpha / 2 (Fang et al. 2021, PLIF)."""

    alpha: float = 2.0
    code: ClassVar[int | None] = 1

    def slope(self, distance: Tensor) -> Tensor:
        u = math.pi / 2.0 * self.alpha * distance
        return self.alpha / (2.0 * (1.0 + u * u))


@dataclass(frozen=True)
class Triangle(Surrogate):
    """max(0, alpha - alpha^2 * |distance|); peak alpha (Bellec et al. 2018; SpikingJelly's PiecewiseQuadratic).

    Computed as alpha * max(0, 1 - alpha * |distance|): near the foot at |distance| = 1 / alpha the difference is exact,
    so that paths agree bit for bit; rounding of alpha * |distance| moves the slope by up to 1e-7 of its peak.
    """

    alpha: float = 1.0
    code: ClassVar[int | None] = 2

    def slope(self, distance: Tensor) -> Tensor:
        return self.alpha * torch.clamp(1.0 - self.alpha * distance.abs(), min=0.0)


SURROGATES: dict[str, Callable[..., Surrogate]] = {"sigmoid": Sigmoid, "atan": ATan, "triangle": Triangle}


def surrogate(name: str, alpha: float | None = None) -> Surrogate:
    """A surrogate by name: sigmoid (alpha 4), atan (alpha 2) or triangle (alpha 1).

    Raises
    ------
    SpecError
        If the name is unknown or alpha is not positive.
    """
    if name not in SURROGATES:
        raise SpecError(f"surrogate must be one of {', '.join(sorted(SURROGATES))}, got {name!r}")
    kind = SURROGATES[name]
    return kind() if alpha is None else kind(alpha)
