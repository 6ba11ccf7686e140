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
_MOST = 2**62
_MOST_SHIFT = 62
HALF = 16
"""Bits of the lower part of numbers whose sums are too wide for 64 bits until they are rounded."""


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
        Sums are shifted left by so much; a number, or int64 [out]. Where it is negative they are shifted right and
        rounded to the nearest (half up), once for the whole sum.
    factor
        int64 [out], by which sums are multiplied before; None: 1.
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
    shift: int | Tensor = 0
    factor: Tensor | None = None
    delay: int = 0
    step: Tensor | None = None

    def __post_init__(self) -> None:
        if self.weight.dtype != torch.int64 or self.weight.ndim != (2 if self.kind == "dense" else 4):
            shape = list(self.weight.shape)
            raise SpecError(f"weights to {self.target!r} must be int64 [out, in] or [out, in, kH, kW], got {shape}")
        if not self.sources or self.delay < 0:
            raise SpecError(f"a connection to {self.target!r} needs sources, and a delay >= 0")
        if int(torch.as_tensor(self.shift).abs().max()) > _MOST_SHIFT or (self.factor is not None and self.is_rounded):
            raise SpecError(
                f"a shift to {self.target!r} must lie within +-{_MOST_SHIFT}, and be 0 or more beside a factor"
            )

    @property
    def is_rounded(self) -> bool:
        """Whether sums are shifted right."""
        return int(torch.as_tensor(self.shift).min()) < 0

    def sums(self, spikes: list[Tensor]) -> Tensor:
        """What spikes [N, ...] of each source add to the target's neurons [N, ...], int64.

        They are added in float64 where every sum lies below 2^53, which it holds exactly; else in int64, slowly.

        Raises
        ------
        ModelError
            If a sum could be larger, or shapes do not fit.
        """
        x = self.pooled(spikes)
        if self.is_rounded:
            high = x >> HALF
            parts = self._summed(high), self._summed(x - (high << HALF))
            return _joined(*parts, _by_output(self.shift, parts[0]))
        sums = self._summed(x)
        factor, shift = (_by_output(v, sums) for v in (1 if self.factor is None else self.factor, self.shift))
        reach = float((sums.abs().double() * factor * 2.0**shift).max()) if sums.numel() else 0.0
        if reach >= _MOST:
            raise ModelError(f"sums into {self.target!r} reach {reach:.3g}, beyond 2^62; use fewer bits")
        return sums * factor << shift

    def _summed(self, x: Tensor) -> Tensor:
        """Weighted sums, as they are."""
        largest = int(x.abs().amax()) if x.numel() else 0
        fan = int(self.weight.abs().flatten(1).sum(1).amax())
        if largest * fan >= _MOST:
            raise ModelError(f"sums into {self.target!r} could reach {largest * fan:,}, beyond 2^62; use fewer bits")
        try:
            return self._weighted(x.double()).to(torch.int64) if largest * fan < _EXACT else self._wide(x)
        except RuntimeError as error:
            raise ModelError(f"what arrives at {self.target!r} has the shape {list(x.shape)}: {error}") from error

    def each(self, i: Tensor, spikes: list[Tensor], bits: int, overflow: Overflow, most: int | None) -> Tensor:
        """`i` [N, out] after event by event has been added, channels in order, each addition held in `bits`."""
        if self.is_rounded or self.factor is not None:
            raise ModelError(f"events into {self.target!r} are added one by one; give no factor and no shift right")
        x = self.pooled(spikes).flatten(1)
        x = x if most is None else x.clamp(max=most)
        weight = self.weight << torch.as_tensor(self.shift).view(-1, 1)
        reach = i.abs() + (x.double() @ weight.abs().double().T).view_as(i)
        if float(reach.max()) < 1 << (bits - 1):
            # no addition can overflow, so that their order is none
            return i + (x.double() @ weight.double().T).to(torch.int64).view_as(i)
        for channel in range(x.shape[1]):
            left = x[:, channel].clone()
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

    def _wide(self, x: Tensor) -> Tensor:
        """`_weighted` in int64, which torch's convolutions do not take: window by window of the kernel."""
        if self.kind == "dense":
            return x.flatten(1) @ self.weight.T
        (top, left), (down, right), (wide, far) = self.padding, self.stride, self.dilation
        out, inputs, kernel_h, kernel_w = self.weight.shape
        x = F.pad(x, (left, left, top, top)).unflatten(1, (self.groups, inputs))
        height = (x.shape[-2] - wide * (kernel_h - 1) - 1) // down + 1
        width = (x.shape[-1] - far * (kernel_w - 1) - 1) // right + 1
        weight = self.weight.unflatten(0, (self.groups, -1))
        sums = x.new_zeros((len(x), self.groups, out // self.groups, height * width))
        for row in range(kernel_h):
            for column in range(kernel_w):
                first, start = row * wide, column * far
                seen = x[..., first : first + down * height : down, start : start + right * width : right]
                sums += weight[..., row, column] @ seen[..., :height, :width].flatten(3)
        return sums.flatten(1, 2).unflatten(-1, (height, width))


def _by_output(values: int | Tensor, sums: Tensor) -> Tensor:
    """Numbers of each output, broadcast to sums [N, out, ...]."""
    return torch.as_tensor(values).view(-1, *(1,) * (sums.ndim - 2))


def _joined(high: Tensor, low: Tensor, shift: Tensor) -> Tensor:
    """(high 2^16 + low) 2^shift, rounded to the nearest, half up; the sum itself need not fit 64 bits."""
    right = (-shift).clamp(min=1)
    few, many = right.clamp(max=HALF), right.clamp(min=HALF + 1) - HALF
    # of up to 16 bits the upper part loses none; beyond, the lower part's last 16 decide nothing
    in_low = (high << (HALF - few)) + ((low + (1 << (few - 1))) >> few)
    in_high = (high + (low >> HALF) + (1 << (many - 1))) >> many
    whole = ((high << HALF) + low) << shift.clamp(min=0)
    return torch.where(shift >= 0, whole, torch.where(right <= HALF, in_low, in_high))
