"""Levels of small squared error for given values (Lloyd 1982, "Least squares quantization in PCM")."""

from __future__ import annotations

import torch
from torch import Tensor

from isofire.quantizers.bins import SortedRows
from isofire.quantizers.qem import midpoints

_CONVERGED = 1e-7
_MOST = 300
"""Alternations from one start."""


def lloyd(rows: Tensor, count: int) -> Tensor:
    """Return `count` ascending levels a row, `[G, L]` float32: a local minimum of the squared error.

    Alternates the nearest level of every value and the mean of every bin, from two starts, and keeps each row's better
    result: the row's quantiles at (i + 1/2) / L, which follow its density, and an even spread from its smallest to its
    largest value, which sees its tails. The level of a bin that holds nothing stays where it is. A row with fewer
    distinct values than levels ends with levels that are equal or stand for nothing.

    Parameters
    ----------
    rows
        `[G, n]` finite values, n >= 1.

    Examples
    --------
    >>> lloyd(torch.tensor([[0.0, 0.1, 0.9, 1.1]]), 2)
    tensor([[0.0500, 1.0000]])
    """
    # On the CPU, so that every machine finds the same levels: sorted sums have no fixed order elsewhere.
    data = SortedRows(rows.float().cpu())
    share = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    quantiles = data.at((share * data.n).long().clamp(max=data.n - 1))
    low, high = data.at(torch.tensor([0, data.n - 1])).double().unbind(1)
    even = torch.lerp(low[:, None], high[:, None], share)
    results = [_converge(data, start.double()) for start in (quantiles, even)]
    first, second = (_error(data, levels) for levels in results)
    best = torch.where((second < first).unsqueeze(1), results[1], results[0])
    return best.to(rows.device)


def _converge(data: SortedRows, levels: Tensor) -> Tensor:
    result = levels.float()
    active = torch.arange(result.shape[0])
    for _ in range(_MOST):
        now = result[active]
        counts, sums = data.cells(midpoints(now))
        moved = torch.where(counts > 0, sums / counts.clamp(min=1), now.double())
        # an empty bin's level may be overtaken by a neighbour's
        moved = moved.sort(dim=1).values.float()
        result[active] = moved
        going = (moved - now).abs().amax(1) > _CONVERGED * data.largest
        if not bool(going.any()):
            break
        active, data = active[going], data.select(going)
    return result


def _error(data: SortedRows, levels: Tensor) -> Tensor:
    counts, sums = data.cells(midpoints(levels))
    values = levels.double()
    return (values * (values * counts - 2 * sums)).sum(1)
