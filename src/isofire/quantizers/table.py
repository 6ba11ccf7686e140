"""A quantizer as a table: ascending levels and the edges of the bins that they stand for.

The convention is one for the whole package: `L` levels have L - 1 ascending edges, and a value x belongs to bin i if
exactly i edges lie strictly below it. An edge thus belongs to the bin below it: x = edges[i] is quantized to levels[i],
the next larger float32 to levels[i + 1]. To have x = v on the upper side, put the edge at the float32 just below v. An
edge may be infinite: -inf lies below every value, inf below none, so that a bin beside it is never reached. Edges may
be equal: the bin between them holds nothing. Values are compared as float32.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from isofire.quantizers import bins
from isofire.quantizers.rows import to_rows

# The largest finite float32, as its place in the order of all float32 numbers.
_LAST = 0x7F7FFFFF


class Table(NamedTuple):
    """Edges `[G, L-1]` and levels `[G, L]`, float32, ascending; the convention is the module's.

    Examples
    --------
    >>> table = Table(torch.tensor([[0.0]]), torch.tensor([[-1.0, 1.0]]))
    >>> table.quantize(torch.tensor([-0.5, 0.0, 0.5]), axis=None)
    tensor([-1., -1.,  1.])
    """

    edges: Tensor
    levels: Tensor

    def quantize(self, x: Tensor, axis: int | None) -> Tensor:
        """Return each element's level in float32; one row of the table per index of `axis`, or one row for all."""
        rows = to_rows(x.float(), axis)
        groups = rows.values.shape[0]
        edges, levels = (part.expand(groups, -1).contiguous() for part in self)
        return rows.restore(bins.quantize(rows.values, levels, edges))


def find_edges(code: Callable[[Tensor], Tensor], groups: int, count: int, device: torch.device) -> Tensor:
    """Return the edges of a quantizer that is known only by what it does, exact to the last bit.

    Bisects over all finite float32 numbers, so its cost is 32 calls of `code` on `[G, L-1]` values.

    Parameters
    ----------
    code
        Values `[G, n]` float32 -> bins `[G, n]`, 0..count-1; must not fall where the value rises.
    groups, count
        G and L.
    device
        Where to work.

    Returns
    -------
    Tensor
        `[G, L-1]` float32: edge i is the largest number whose bin is at most i; -inf if there is none, inf if all are.

    Examples
    --------
    >>> find_edges(lambda x: (x > 0.5).int(), 1, 2, torch.device("cpu"))
    tensor([[0.5000]])
    """
    bin_ = torch.arange(count - 1, device=device).expand(groups, -1)
    # places in the order of float32: `low` has a bin <= i or lies before the first number, `high` a larger one or after
    low = torch.full_like(bin_, -_LAST - 1)
    high = torch.full_like(bin_, _LAST + 1)
    while bool((high - low > 1).any()):
        middle = torch.div(low + high, 2, rounding_mode="floor")
        below = code(_at(middle)) <= bin_
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    edges = _at(low.clamp(min=-_LAST))
    return edges.masked_fill(low < -_LAST, -torch.inf).masked_fill(low == _LAST, torch.inf)


def _at(place: Tensor) -> Tensor:
    """The float32 number at a place in the order of all finite ones; place 0 is zero, -0 has none of its own."""
    magnitude = place.abs().to(torch.int32).view(torch.float32)
    return torch.where(place < 0, -magnitude, magnitude)
