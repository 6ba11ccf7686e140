"""What a neuron may declare beside its step: faster ways to run all steps that give the same spikes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from isofire.neurons.state_quantizer import StateQuantizer

if TYPE_CHECKING:
    from isofire.neurons.base import Neuron


def in_a_trace() -> bool:
    """Whether `torch.jit.trace` writes the call down."""
    return not torch.compiler.is_compiling() and torch._C._is_tracing()


def in_a_graph() -> bool:
    """Whether the call is written into a graph, where the kernels are one operator."""
    return torch.compiler.is_compiling() or in_a_trace()


@dataclass(frozen=True)
class Call:
    """One forward call of a layer.

    Parameters
    ----------
    x
        Float32 or float64 inputs [T, N, ...], or [N, ...] with `repeat`: the same at each of `steps`.
    norm
        A batch norm to apply to the inputs first, or None.
    state
        The frozen membrane quantizer, or None without one.
    """

    x: Tensor
    steps: int
    repeat: bool
    norm: _BatchNorm | None
    state: StateQuantizer | None


class FastPath(ABC):
    """A way to run a layer over all its steps at once. `name` is the backend that forces it."""

    name: str
    is_operator: ClassVar[bool] = False
    """Whether the layer is one operator in a traced graph."""

    @abstractmethod
    def refuses(self, neuron: Neuron, call: Call) -> str | None:
        """None if it runs this call, else why it cannot and the cure, to follow "backend NAME "."""

    def takes(self, call: Call) -> bool:
        """Whether it runs the call as it is. If not, it gets inputs [T, N, ...] to which the norm has been applied."""
        return call.norm is None and not call.repeat

    @abstractmethod
    def run(self, neuron: Neuron, call: Call) -> Tensor:
        """Spikes [T, N, ...], equal to the reference's bit for bit."""
