"""Levels and bin edges of a membrane, chosen by how the layer then fires.

Squared error of the state is the wrong objective for a membrane: what matters is whether a stored potential leads to
the same spikes. The search starts from grids with an exact rest level, then moves one level or edge at a time, by
steps that halve, and keeps what brings the neurons' rates nearer to their target. Channels with levels of their own
are searched all at once: each keeps its own best.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from isofire.quantizers.table import Table

LARGEST_FREE = 8
"""Up to so many levels are free; above, the grid's two ends are."""
_STEPS = (0.2, 0.1, 0.05, 0.025)
_ENDS = (0.0, 0.25, 0.5, 0.75, 1.0)
_TOPS = (0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
_PASSES = 2


class States(NamedTuple):
    """What a search must know of a membrane.

    Parameters
    ----------
    rest, threshold
        Potential at rest, and where it fires.
    low, high
        Lowest and highest potential that is seen, but for rare ones.
    fire_edge
        At `pre_fire`, the edge above which the neuron fires, as float32: decisions are then exact. None where the full
        value is compared.
    """

    rest: float
    threshold: float
    low: float
    high: float
    fire_edge: float | None = None


def search(errors: Callable[[Table], Tensor], count: int, states: States, channels: int) -> Table:
    """The table of `count` levels with the least error found.

    Parameters
    ----------
    errors
        Error of each channel, `[C]`, when the membrane is stored by a table of one row or of C.
    count
        Levels, the one that stands for "fires" at `pre_fire` among them.
    channels
        1: one row of levels for the layer, by the mean error of its channels. C: a row for each.

    Returns
    -------
    Table
        Levels `[channels, count]` and edges `[channels, count - 1]`.
    """
    best = _Best(errors, channels)
    for levels, edges in _starts(count, states):
        best.offer(_with_fire(levels, edges, states))
    for step in _STEPS:
        for _ in range(_PASSES):
            if not _improve(best, step * (states.threshold - states.rest), states):
                break
    return best.table


class _Best:
    """The best table so far, for each row."""

    def __init__(self, errors: Callable[[Table], Tensor], rows: int) -> None:
        self.errors, self.rows = errors, rows

    def offer(self, table: Table) -> bool:
        """Take over the rows in which `table` is better; whether there were any."""
        error = self.errors(table)
        error = error.mean(0, keepdim=True) if self.rows == 1 else error
        wide = Table(*(part.expand(self.rows, -1) for part in table))
        if not hasattr(self, "error"):
            self.error, self.table = error.clone(), Table(*(part.clone() for part in wide))
            return True
        better = error < self.error
        self.error = torch.where(better, error, self.error)
        self.table = Table(
            *(torch.where(better.unsqueeze(1), new, old) for new, old in zip(wide, self.table, strict=True))
        )
        return bool(better.any())


def _starts(count: int, states: States) -> Iterator[tuple[Tensor, Tensor]]:
    """Even grids between a low and a high end, shifted so that one level is the rest; nearest-level edges, or for two
    levels also others."""
    stored = count - (states.fire_edge is not None)
    for low in _ENDS:
        for top in _TOPS:
            span = torch.linspace(low * (states.low - states.rest), top * (states.high - states.rest), stored)
            levels = span - span[span.abs().argmin()] + states.rest
            if stored == 2:
                for share in (0.3, 0.5, 0.7):
                    yield levels, levels[:1] + share * (levels[1:] - levels[:1])
            else:
                yield levels, (levels[1:] + levels[:-1]) / 2


def _with_fire(levels: Tensor, edges: Tensor, states: States) -> Table:
    """Sorted, and with the code that stands for a potential above the threshold."""
    if states.fire_edge is not None:
        top = max(states.high, states.threshold)
        levels = torch.cat([levels.clamp(max=states.fire_edge), levels.new_tensor([top])])
        edges = torch.cat([edges.clamp(max=states.fire_edge), edges.new_tensor([states.fire_edge])])
    return Table(edges.sort().values.unsqueeze(0), levels.sort().values.unsqueeze(0))


def _improve(best: _Best, step: float, states: States) -> bool:
    moved = False
    for which, column, sign in _moves(best.table, states):
        parts = [part.clone() for part in best.table]
        if column is None:
            _stretch(parts, which, sign * step, states)
        else:
            parts[which][:, column] += sign * step
        if states.fire_edge is not None:
            for part, end in zip(parts, (-1, -1), strict=True):
                part[:, :end] = part[:, :end].clamp(max=states.fire_edge)
        moved |= best.offer(Table(*(part.sort(1).values for part in parts)))
    return moved


def _moves(table: Table, states: States) -> Iterator[tuple[int, int | None, float]]:
    """(edges or levels, column, sign): each level and edge both ways; of many levels only the two ends of the grid."""
    fixed = states.fire_edge is not None
    if table.levels.shape[1] - fixed > LARGEST_FREE:
        for end in (0, 1):
            for sign in (1.0, -1.0):
                yield end, None, sign
        return
    for which, part in ((1, table.levels), (0, table.edges)):
        for column in range(part.shape[1] - fixed):
            for sign in (1.0, -1.0):
                yield which, column, sign


def _stretch(parts: list[Tensor], end: int, step: float, states: States) -> None:
    """Move one end of the grid, and what lies on that side of the rest with it in proportion."""
    levels = parts[1]
    stored = levels[:, : levels.shape[1] - (states.fire_edge is not None)]
    side = stored < states.rest if end == 0 else stored > states.rest
    reach = (stored[:, :1] if end == 0 else stored[:, -1:]) - states.rest
    factor = (reach + step) / torch.where(reach == 0, torch.ones_like(reach), reach)
    stretched = torch.where(side & (reach != 0), states.rest + (stored - states.rest) * factor.clamp(0.1, 10), stored)
    levels[:, : stored.shape[1]] = stretched
    middles = (stretched[:, 1:] + stretched[:, :-1]) / 2
    parts[0][:, : middles.shape[1]] = middles
