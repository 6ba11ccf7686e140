"""A frozen membrane quantizer as the fast paths run it: an affine grid where it is one, else a table."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from isofire.quantizers import Affine, Table

NATIVE_BITS = 8
"""The kernels' tables have 2^1 to 2^NATIVE_BITS levels."""
COMPARED_BITS = 6
"""Up to 2^COMPARED_BITS levels they compare with every edge; with more they search."""


@dataclass(frozen=True)
class StateQuantizer(ABC):
    """A scalar map of the membrane, one for all channels or one a channel, with its straight-through gradient.

    Parameters
    ----------
    placement
        "pre_fire" or "post_reset".
    gradient_range
        lo and hi, float32 [1] or [C]: no gradient passes outside of them. None: it passes everywhere.
    """

    placement: str
    gradient_range: tuple[Tensor, Tensor] | None

    @property
    @abstractmethod
    def groups(self) -> int:
        """1, or the number of channels."""

    @property
    @abstractmethod
    def is_native(self) -> bool:
        """Whether the compiled kernels can run it."""

    @abstractmethod
    def quantize(self, v: Tensor) -> Tensor:
        """States [N, C, ...] quantized, in their dtype; arithmetic is float32."""

    def mask(self, raw: Tensor, g: Tensor) -> Tensor:
        """Gradient through the quantizer whose input was `raw`."""
        if self.gradient_range is None:
            return g
        lo, hi = (_per_channel(bound, raw) for bound in self.gradient_range)
        return torch.where((raw >= lo) & (raw <= hi), g, torch.zeros_like(g))


@dataclass(frozen=True)
class AffineState(StateQuantizer):
    """Levels origin + step * k; float32 [1] or [C]."""

    affine: Affine

    @property
    def groups(self) -> int:
        return max(self.affine.origin.numel(), self.affine.step.numel())

    @property
    def is_native(self) -> bool:
        return True

    def quantize(self, v: Tensor) -> Tensor:
        """Values on the grid: origin + step * round(clamp((v - origin) / step, k_min, k_max)), in float32."""
        origin, step = _per_channel(self.affine.origin, v), _per_channel(self.affine.step, v)
        k = torch.clamp((v.float() - origin) / step, self.affine.k_min, self.affine.k_max).round_()
        return (origin + step * k).to(v.dtype)


@dataclass(frozen=True)
class TableState(StateQuantizer):
    """Any levels: a value belongs to the level with as many edges below it as there are levels below that one."""

    table: Table

    @property
    def groups(self) -> int:
        return self.table.levels.shape[0]

    @property
    def bits(self) -> int:
        """Smallest b with 2^b levels or more, at least 1."""
        return max(1, (int(self.table.levels.shape[1]) - 1).bit_length())

    @property
    def is_native(self) -> bool:
        return self.bits <= NATIVE_BITS

    def quantize(self, v: Tensor) -> Tensor:
        return self.table.quantize(v, None if self.groups == 1 else 1).to(v.dtype)

    def rows(self) -> tuple[Tensor, Tensor]:
        """Edges [G, 2^bits - 1] and levels [G, 2^bits], float32, of a table of 2^bits levels that is the same map."""
        edges, levels = self.table
        more = (1 << self.bits) - levels.shape[1]
        edges = torch.cat([edges, edges.new_full((self.groups, more), torch.inf)], 1)
        levels = torch.cat([levels, levels[:, -1:].expand(-1, more)], 1)
        return edges.float().contiguous(), levels.float().contiguous()

    def padded(self) -> tuple[Tensor, Tensor]:
        """`rows` as the compiled kernels read them: up to COMPARED_BITS a row an edge or level, else a row a group."""
        edges, levels = self.rows()
        return (edges.T.contiguous(), levels.T.contiguous()) if self.bits <= COMPARED_BITS else (edges, levels)


def _per_channel(values: Tensor, state: Tensor) -> Tensor:
    """[1] or [C] shaped to broadcast with states [N, C, ...]."""
    return values if values.numel() == 1 else values.view(-1, *(1,) * (state.ndim - 2))
