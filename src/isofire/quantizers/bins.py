"""Which cell each value falls into, and what each cell holds: the two things every level-fitting method needs.

`L` ascending levels have L - 1 thresholds `t`; a value x belongs to cell i if exactly i thresholds lie strictly below
it, so that x = t[i] still belongs to cell i. Rows `[G, n]` have their own thresholds `[G, L-1]`.
"""

from __future__ import annotations

import torch
from torch import Tensor

# Up to this many thresholds, comparing with each of them beats a binary search (measured on one core).
_COMPARE = 63
# Elements worked on at a time: a core's cache on a CPU. Elsewhere, elements times levels: enough to fill the device.
_BLOCK = 1 << 16
_BLOCK_DEVICE = 1 << 26


def assign(rows: Tensor, thresholds: Tensor) -> Tensor:
    """Return each value's cell, `[G, n]`, uint8 or int32.

    >>> assign(torch.tensor([[-1.0, 0.0, 0.5]]), torch.tensor([[0.0]]))
    tensor([[0, 0, 1]], dtype=torch.uint8)
    """
    count = thresholds.shape[1]
    if count > _COMPARE:
        return torch.searchsorted(thresholds, rows.contiguous(), out_int32=True)
    cell = torch.zeros(rows.shape, dtype=torch.uint8, device=rows.device)
    for i in range(count):
        cell += (rows > thresholds[:, i : i + 1]).view(torch.uint8)
    return cell


def quantize(rows: Tensor, levels: Tensor, thresholds: Tensor) -> Tensor:
    """Return each value's level, `[G, n]` float32."""
    return _pass(rows, levels, thresholds, count=False)[0]


def quantize_and_count(rows: Tensor, levels: Tensor, thresholds: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return each value's level, and how many values each cell holds and their sum.

    Returns
    -------
    values
        `[G, n]` float32.
    counts, sums
        `[G, L]` float64.
    """
    return _pass(rows, levels, thresholds, count=True)


def _pass(rows: Tensor, levels: Tensor, thresholds: Tensor, *, count: bool) -> tuple[Tensor, Tensor, Tensor]:
    groups, width = rows.shape
    cells = levels.shape[1]
    values = torch.empty_like(rows)
    counts = rows.new_zeros((groups, cells), dtype=torch.float64)
    sums = torch.zeros_like(counts)
    block = _BLOCK if rows.device.type == "cpu" else max(1, _BLOCK_DEVICE // cells)
    columns = max(1, min(width, block))
    height = max(1, block // columns)
    for g in range(0, groups, height):
        part = slice(g, g + height)
        own = thresholds[part]
        first = torch.arange(own.shape[0], dtype=torch.int32, device=rows.device).mul_(cells).unsqueeze(1)
        flat = levels[part].reshape(-1)
        for c in range(0, width, columns):
            x = rows[part, c : c + columns]
            key = (assign(x, own) + first).reshape(-1)
            values[part, c : c + columns] = flat.index_select(0, key).view_as(x)
            if count:
                more = count_by_key(x, key, cells) if rows.device.type == "cpu" else count_by_threshold(x, own)
                counts[part] += more[0]
                sums[part] += more[1]
    return values, counts, sums


def count_by_key(rows: Tensor, key: Tensor, cells: int) -> tuple[Tensor, Tensor]:
    """Count and sum `[G, L]` by one pass over `key = row * L + cell`. Its order of summation is fixed on a CPU only."""
    size = rows.shape[0] * cells
    counts = torch.bincount(key, minlength=size).double()
    sums = torch.bincount(key, weights=rows.reshape(-1).double(), minlength=size)
    return counts.view(-1, cells), sums.view(-1, cells)


def count_by_threshold(rows: Tensor, thresholds: Tensor) -> tuple[Tensor, Tensor]:
    """Count and sum `[G, L]` without atomics: the same result in every run, on any device."""
    above = rows.unsqueeze(1) > thresholds.unsqueeze(2)
    counts = above.sum(2).double()
    sums = torch.where(above, rows.unsqueeze(1), 0).sum(2, dtype=torch.float64)
    all_counts = torch.full_like(counts[:, :1], rows.shape[1])
    all_sums = rows.sum(1, keepdim=True, dtype=torch.float64)
    return _steps(all_counts, counts), _steps(all_sums, sums)


def _steps(total: Tensor, above: Tensor) -> Tensor:
    """From what lies above each threshold to what lies in each cell."""
    return -torch.diff(above, prepend=total, append=torch.zeros_like(total))


class SortedRows:
    """Rows sorted once, so that counting for any number of threshold sets costs a few look-ups each.

    Parameters
    ----------
    rows
        `[G, n]` float32.

    Attributes
    ----------
    n
        Values per row.
    energy
        Mean square of each row, `[G]` float64.
    largest
        Largest magnitude of each row, `[G]` float64.
    """

    def __init__(self, rows: Tensor) -> None:
        self._sorted = rows.contiguous().sort(dim=1).values
        self.n = rows.shape[1]
        self._running = torch.nn.functional.pad(self._sorted.cumsum(1, dtype=torch.float64), (1, 0))
        self.energy = self._sorted.double().square().mean(1)
        self.largest = torch.maximum(self._sorted[:, -1], -self._sorted[:, 0]).double()

    def cells(self, thresholds: Tensor) -> tuple[Tensor, Tensor]:
        """Return count and sum of every cell, `[G, L]` float64, for float32 thresholds `[G, L-1]`."""
        ends = torch.searchsorted(self._sorted, thresholds.float().contiguous(), right=True)
        ends = torch.cat([torch.zeros_like(ends[:, :1]), ends, torch.full_like(ends[:, :1], self.n)], 1)
        return ends.diff(dim=1).double(), self._running.gather(1, ends).diff(dim=1)

    def at(self, ranks: Tensor) -> Tensor:
        """Return each row's values of these ranks (0 is the smallest), `[G, len(ranks)]` float32."""
        return self._sorted[:, ranks.to(self._sorted.device)]

    def select(self, kept: Tensor) -> SortedRows:
        """Return only the rows marked in the bool mask `[G]`."""
        part = object.__new__(SortedRows)
        part.n, part._sorted, part._running = self.n, self._sorted[kept], self._running[kept]
        part.energy, part.largest = self.energy[kept], self.largest[kept]
        return part
