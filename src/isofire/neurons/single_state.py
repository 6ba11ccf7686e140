"""Neurons whose only variable is their membrane: what the fused paths need to know of them."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

from torch import Tensor

from isofire.neurons.dynamics import Dynamics


@dataclass(frozen=True, kw_only=True)
class MembraneDynamics(Dynamics):
    """Dynamics of one variable, with the derivatives of its charge."""

    @property
    @abstractmethod
    def kernel(self) -> int:
        """Its `Charge` in _kernels.cpp."""

    @property
    def kernel_tau(self) -> float:
        """The time constant for the kernel where none is learned."""
        return 1.0

    @abstractmethod
    def through_charge(self, g: Tensor, decay: Tensor | None) -> tuple[Tensor, Tensor]:
        """Gradients at the input and at the previous membrane, from that at the charged membrane."""

    def drive(self, x: Tensor, v: Tensor) -> Tensor:
        """d (charged membrane) / d (learned 1/tau)."""
        raise NotImplementedError(f"{type(self).__name__} learns nothing")
