"""Integer weights between layers: what a step's spikes add to the neurons behind them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from isofire.errors import ModelError, SpecError
from isofire.integer.arithmetic import Overflow, fit

INPUT = "input"
"""Stands for the network's input among the sources of a connection."""
_EXACT = 2**53


@dataclass(frozen=True)
class SumPool:
    """Sums over windows, in place of averages; None for the size: over the whole map."""

    size: tuple[int, int] | None = None
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)

    def apply(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C, H', W'], int64."""
        if self.size is None:
            return x.sum((-2, -1), keepdim=True)
        return F.avg_pool2d(x.double(), self.size, self.stride, self.padding, divisor_override=1).to(torch.int64)


@dataclass(frozen=True, kw_only=True)
class Connection:
    """Weights from one or more layers, whose spikes are added, to a layer of neurons or the readout.

    Parameters
    ----------
    sources
        Layers, or `INPUT`; their maps have one shape.
    target
        The layer that it leads to.
    weight
        int64 [out, in] (`kind` dense, on what arrives flattened) or [out, in / groups, kH, kW] (conv).
    pools
        Taken of the spikes first.
    shift
        Sums are shifted left by so much.
    delay
        Steps between a spike and its arrival; 0 needs a source that comes before the target.
    step
        What one unit of the weights is in the float network, broadcast to [out]; for reading alone.
    """

    sources: tuple[str, ...]
    target: str
    weight: Tensor
    kind: Literal["dense", "conv"] = "dense"
    pools: tuple[SumPool, ...] = ()
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    shift: int = 0
    delay: int = 0
    step: Tensor | None = None

    def __post_init__(self) -> None:
        if self.weight.dtype != torch.int64 or self.weight.ndim != (2 if self.kind == "dense" else 4):
            shape = list(self.weight.shape)
            raise SpecError(f"weights to {self.target!r} must be int64 [out, in] or [out, in, kH, kW], got {shape}")
        if not self.sources or min(self.shift, self.delay) < 0:
            raise SpecError(f"a connection to {self.target!r} needs sources, and shift and delay >= 0")

    def sums(self, spikes: list[Tensor]) -> Tensor:
        """What spikes [N, ...] of each source add to the target's neurons [N, ...], int64.

        Convolutions run in float64, which holds every sum below 2^53 exactly.

        Raises
        ------
        ModelError
            If a sum could be larger, or shapes do not fit.
        """
        x = self.pooled(spikes)
        largest = int(x.abs().amax()) if x.numel() else 0
        fan = int(self.weight.abs().flatten(1).sum(1).amax())
        if largest * fan >= _EXACT:
            raise ModelError(f"sums into {self.target!r} could reach {largest * fan:,}, beyond 2^53; use fewer bits")
        try:
            return self._weighted(x.double()).to(torch.int64) << self.shift
        except RuntimeError as error:
            raise ModelError(f"what arrives at {self.target!r} has the shape {list(x.shape)}: {error}") from error

    def each(self, i: Tensor, spikes: list[Tensor], bits: int, overflow: Overflow, most: int | None) -> Tensor:
        """`i` [N, out] after event by event has been added, channels in order, each addition held in `bits`."""
        x = self.pooled(spikes).flatten(1)
        weight = self.weight << self.shift
        for channel in range(x.shape[1]):
            left = x[:, channel].clone() if most is None else x[:, channel].clamp(max=most)
            while bool((left > 0).any()):
                event = (left > 0).to(torch.int64).unsqueeze(1) * weight[:, channel]
                i = fit(i + event.view_as(i), bits, overflow, self.target)
                left = left - 1
        return i

    def pooled(self, spikes: list[Tensor]) -> Tensor:
        """The sources' spikes added and pooled."""
        x = reduce(torch.add, spikes)
        for pool in self.pools:
            x = pool.apply(x)
        return x

    def _weighted(self, x: Tensor) -> Tensor:
        weight = self.weight.double()
        if self.kind == "dense":
            return x.flatten(1) @ weight.T
        return F.conv2d(x, weight, None, self.stride, self.padding, self.dilation, self.groups)
