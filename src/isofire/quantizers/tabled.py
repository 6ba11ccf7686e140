"""Quantizers that are known by their table of edges and levels, at any time."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from isofire.quantizers import bins, ste
from isofire.quantizers.base import Quantizer
from isofire.quantizers.grids import check_codes
from isofire.quantizers.rows import to_rows
from isofire.quantizers.table import Table


class TableQuantizer(Quantizer):
    """A quantizer whose `_table()` is all it takes to give codes and values."""

    @abstractmethod
    def _table(self) -> Table:
        """Edges `[G, L-1]` and levels `[G, L]` as they are now, float32; ModelError if calibration is missing."""

    def forward(self, x: Tensor) -> Tensor:
        x32, learning = self._checked(x), self.learning
        self._require_ready()
        with torch.no_grad():
            q = self._quantized(x32, learning).to(x.dtype)
        return self._with_gradient(x, q) if x.requires_grad and torch.is_grad_enabled() else q

    def _quantized(self, x: Tensor, learning: bool) -> Tensor:
        """The level of every element, float32."""
        return self._table().quantize(x, self.axis)

    def _with_gradient(self, x: Tensor, q: Tensor) -> Tensor:
        """`q` with the gradient that it has at `x`: here straight through."""
        return ste.plain(x, q)

    @torch.no_grad()
    def codes(self, x: Tensor) -> Tensor:
        x32 = self._checked(x)
        self._require_ready()
        rows = to_rows(x32, self.axis)
        edges = self._table().edges.expand(rows.values.shape[0], -1).contiguous()
        return rows.restore(bins.assign(rows.values, edges).to(torch.int32))

    @torch.no_grad()
    def decode(self, codes: Tensor) -> Tensor:
        self._require_ready()
        self._check_shape(codes)
        levels = self._table().levels
        check_codes(codes, levels.shape[1])
        rows = to_rows(codes, self.axis)
        return rows.restore(levels.expand(rows.values.shape[0], -1).gather(1, rows.values.long()))

    @torch.no_grad()
    def levels(self) -> Tensor:
        self._require_ready()
        return self._table().levels.clone()


class FollowingQuantizer(TableQuantizer):
    """A quantizer whose levels move with what its training forwards see."""

    @abstractmethod
    def _follow(self, rows: Tensor, counts: Tensor, sums: Tensor) -> None:
        """Take over what a training forward saw: values `[G, n]`, and count and sum of those in each bin, `[G, L]`."""

    @property
    def is_fixed(self) -> bool:
        return not self.learning

    def _quantized(self, x: Tensor, learning: bool) -> Tensor:
        if not (learning and x.numel()):
            return super()._quantized(x, learning)
        rows = to_rows(x, self.axis)
        edges, levels = (part.expand(rows.values.shape[0], -1).contiguous() for part in self._table())
        values, counts, sums = bins.quantize_and_count(rows.values, levels, edges)
        self._follow(rows.values, counts, sums)
        return rows.restore(values)
