"""Quantizers that are known by their table of edges and levels, at any time."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from isofire.quantizers import bins
from isofire.quantizers.base import Quantizer
from isofire.quantizers.grids import check_codes
from isofire.quantizers.rows import to_rows
from isofire.quantizers.table import Table


class TableQuantizer(Quantizer):
    """A quantizer whose `_table()` is all it takes to give codes and values."""

    @abstractmethod
    def _table(self) -> Table:
        """Edges `[G, L-1]` and levels `[G, L]` as they are now, float32; ModelError if calibration is missing."""

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
