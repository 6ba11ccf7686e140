"""Free levels and free bin edges: what a table can hold, as a quantizer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from isofire.errors import SpecError
from isofire.quantizers import ste
from isofire.quantizers.base import Granularity
from isofire.quantizers.lloyd import lloyd
from isofire.quantizers.qem import midpoints
from isofire.quantizers.rows import along
from isofire.quantizers.table import Table
from isofire.quantizers.tabled import TableQuantizer

Ste = Literal["clipped", "plain"]
FEWEST, MOST = 2, 256
# so that the sum of two is finite, as in `grids.check_range`
_LARGEST = 2.0**126


class Levels(TableQuantizer):
    """Quantize to levels that need not lie on a grid, with bin edges that need not lie midway between them.

    A value on an edge belongs to the bin below it; see `isofire.quantizers.table`. Levels and edges are buffers and do
    not learn. Where an edge does not lie between its two levels, quantizing twice is not the same as once.

    Parameters
    ----------
    levels
        Ascending, 2 to 256 of them; or their number, and `calibrate` finds a local minimum of the squared error by
        Lloyd's algorithm (Lloyd 1982, IEEE Trans. Inf. Theory 28), separately for each channel.
    edges
        Ascending, one fewer than levels; default: the midpoints, which round to the nearest level. They need levels.
    granularity, channels, channel_axis
        See `Quantizer`. Given levels are every channel's; `set_table` gives channels their own.
    ste
        "plain": gradient 1 everywhere. "clipped": none outside the outermost levels.

    Raises
    ------
    SpecError
        If there are too few or too many levels, or levels or edges are not finite and ascending.

    Examples
    --------
    >>> quantizer = Levels([-1.0, 0.0, 2.0])
    >>> quantizer(torch.tensor([-0.5, 0.9, 1.1]))
    tensor([-1.,  0.,  2.])
    """

    values: Tensor
    edges: Tensor

    def __init__(
        self,
        levels: int | Sequence[float],
        *,
        edges: Sequence[float] | None = None,
        granularity: Granularity = "tensor",
        channels: int = 1,
        channel_axis: int = 0,
        ste: Ste = "plain",
    ) -> None:
        given = None if isinstance(levels, int) else check_levels(levels, edges)
        count = levels if isinstance(levels, int) else len(levels)
        if isinstance(levels, bool) or not FEWEST <= count <= MOST:
            raise SpecError(f"there must be {FEWEST} to {MOST} levels, got {count}; for more take Uniform")
        if given is None and edges is not None:
            raise SpecError("edges belong to given levels, got only their number; give the levels, or drop the edges")
        if ste not in get_args(Ste):
            raise SpecError(f"ste must be 'clipped' or 'plain', got {ste!r}")
        super().__init__(
            math.log2(count),
            granularity=granularity,
            channels=channels,
            channel_axis=channel_axis,
            calibrated=given is not None,
        )
        self.is_given = given is not None
        self.ste: Ste = ste
        table = given or Table(*(torch.zeros(1, n, dtype=torch.float32) for n in (count - 1, count)))
        self.register_buffer("values", table.levels.repeat(channels, 1))
        self.register_buffer("edges", table.edges.repeat(channels, 1))

    def _with_gradient(self, x: Tensor, q: Tensor) -> Tensor:
        if self.ste == "plain":
            return ste.plain(x, q)
        lo, hi = (along(self.values[:, end].float().clone(), x.ndim, self.axis) for end in (0, -1))
        return ste.clipped(x, q, lo, hi)

    @torch.no_grad()
    def calibrate(self, x: Tensor) -> None:
        """Find levels of small squared error. Given levels stay; only the number of channels is taken over."""
        rows = self._rows_to_fit(x).values
        if self.is_given:
            if rows.shape[0] != self.channels:
                self._set(*(row[:1].float().expand(rows.shape[0], -1) for row in (self.edges, self.values)))
            return
        levels = lloyd(rows, self.values.shape[1])
        self._set(midpoints(levels), levels)

    @torch.no_grad()
    def set_table(self, table: Table) -> None:
        """Take these edges `[G, L-1]` and levels `[G, L]`; G is 1 or, for granularity "channel", the channels.

        Raises
        ------
        SpecError
            If the shapes do not fit, or a row is not ascending and, its edges apart, finite.
        """
        edges, levels = table.edges.float(), table.levels.float()
        groups, count = levels.shape
        if count != self.values.shape[1] or edges.shape != (groups, count - 1):
            raise SpecError(
                f"the table must have {self.values.shape[1]} levels and one edge fewer a row, got levels "
                f"{tuple(levels.shape)} and edges {tuple(edges.shape)}"
            )
        if groups != 1 and self.granularity == "tensor":
            raise SpecError(f"granularity 'tensor' has one row of levels, got {groups}; take granularity 'channel'")
        if not bool(levels.isfinite().all()) or bool(edges.isnan().any()):
            raise SpecError("levels must be finite and edges numbers; look at how they were found")
        if bool((levels.diff(dim=1) < 0).any()) or bool((edges.diff(dim=1) < 0).any()):
            raise SpecError("levels and edges must ascend in every row; sort them")
        self.is_given = True
        self._set(edges, levels)

    @property
    def is_fixed(self) -> bool:
        return True

    def _table(self) -> Table:
        self._require_ready()
        return Table(self.edges.float(), self.values.float())

    def gradient_range(self) -> tuple[Tensor, Tensor] | None:
        return (self.values[:, 0].float(), self.values[:, -1].float()) if self.ste == "clipped" else None

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, {self.values.shape[1]} levels, ste={self.ste!r}"

    def _set(self, edges: Tensor, levels: Tensor) -> None:
        self._store("values", levels)
        self._store("edges", edges)
        self.channels = levels.shape[0]
        self._mark_ready()

    def _same_for_all(self) -> bool:
        return self.is_given and self.channels == 1


def check_levels(levels: Sequence[float], edges: Sequence[float] | None = None) -> Table:
    """Return given levels and edges (default: midpoints) as a table of one row.

    Raises
    ------
    SpecError
        If they are not finite and strictly ascending, as float32 numbers, or there isn't one edge fewer than levels.
    """
    values = _ascending("levels", levels)
    if edges is None:
        return Table(midpoints(values), values)
    if len(edges) != len(levels) - 1:
        raise SpecError(
            f"{len(levels)} levels have {len(levels) - 1} edges between them, got {len(edges)}; "
            "leave the edges out for midpoints"
        )
    return Table(_ascending("edges", edges), values)


def _ascending(name: str, numbers: Sequence[float]) -> Tensor:
    if not all(isinstance(number, int | float) and math.isfinite(number) for number in numbers):
        raise SpecError(f"{name} must be finite numbers, got {list(numbers)!r}")
    row = torch.tensor([list(map(float, numbers))], dtype=torch.float32)
    if not bool((row.abs() <= _LARGEST).all()):
        raise SpecError(f"{name} must lie within +-2^126, got {list(numbers)!r}")
    if bool((row.diff(dim=1) <= 0).any()):
        raise SpecError(
            f"{name} must ascend strictly, as float32 numbers, got {list(numbers)!r}; sort them, drop equals"
        )
    return row
