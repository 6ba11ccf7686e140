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
_REACHES = (0.25, 0.5, 1.0)
_PASSES = 2
_FIRES = 2
"""In place of edges (0) and levels (1): those that fire."""


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
    soft
        Whether a spike subtracts the threshold: then what lies above it is remembered, and needs levels of its own.
    """

    rest: float
    threshold: float
    low: float
    high: float
    fire_edge: float | None = None
    soft: bool = False

    def firing(self, count: int) -> int:
        """How many of `count` codes stand for a potential that fires: one after which nothing is left of it, else a
        quarter of them."""
        if self.fire_edge is None:
            return 0
        return max(1, count // 4) if self.soft else 1


def search(errors: Callable[[Table], Tensor], count: int, states: States, channels: int) -> Table:
    """The table of `count` levels with the least error found.

    Parameters
    ----------
    errors
        Error of each channel, `[C]`, when the membrane is stored by a table of one row or of C.
    count
        Levels, those that stand for "fires" at `pre_fire` among them.
    channels
        1: one row of levels for the layer, by the mean error of its channels. C: a row for each.

    Returns
    -------
    Table
        Levels `[channels, count]` and edges `[channels, count - 1]`.
    """
    best = _Best(errors, channels)
    for levels, edges in _starts(count, states):
        for reach in _REACHES if states.soft and states.fire_edge is not None else (1.0,):
            best.offer(_with_fire(levels, edges, count, reach, states))
    for step in _STEPS:
        for _ in range(_PASSES):
            if not _improve(best, step * (states.threshold - states.rest), states):
                break
    if channels == 1 or torch.equal(real := errors(best.table), best.error):
        return best.table
    # channels that act on each other, as those of recurrent neurons, are not chosen each by itself: all take the same
    alike = search(errors, count, states, 1)
    shared = Table(*(part.expand(channels, -1).clone() for part in alike))
    return min((best.table, real), (shared, errors(shared)), key=lambda tried: float(tried[1].mean()))[0]


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
    stored = count - states.firing(count)
    for low in _ENDS:
        for top in _TOPS:
            span = torch.linspace(low * (states.low - states.rest), top * (states.high - states.rest), stored)
            levels = span - span[span.abs().argmin()] + states.rest
            if stored == 2:
                for share in (0.3, 0.5, 0.7):
                    yield levels, levels[:1] + share * (levels[1:] - levels[:1])
            else:
                yield levels, (levels[1:] + levels[:-1]) / 2


def _with_fire(levels: Tensor, edges: Tensor, count: int, reach: float, states: States) -> Table:
    """Sorted, and with the codes that stand for a potential above the threshold, over a share of what lies there."""
    if states.fire_edge is not None:
        top = states.threshold + reach * max(states.high - states.threshold, 0.0)
        above = _above(levels.new_tensor([[top]]), states.firing(count), states)
        levels = torch.cat([levels.clamp(max=states.fire_edge), above.levels[0]])
        edges = torch.cat([edges.clamp(max=states.fire_edge), above.edges[0]])
    return Table(edges.sort().values.unsqueeze(0), levels.sort().values.unsqueeze(0))


def _above(tops: Tensor, count: int, states: States) -> Table:
    """`count` levels that fire and the edges below them, for each row's highest potential, `[C, 1]`.

    The only one of a hard reset is that potential, whose value does not matter. Those of a soft one are the middles of
    equal bins from the threshold up to it.
    """
    assert states.fire_edge is not None
    least = torch.nextafter(torch.tensor(states.fire_edge), torch.tensor(torch.inf)).to(tops)
    if not states.soft:
        return Table(tops.new_full(tops.shape, states.fire_edge), torch.maximum(tops, least))
    bins = torch.arange(count, device=tops.device, dtype=tops.dtype)
    width = (tops - states.threshold).clamp(min=0) / count
    edges = states.threshold + width * bins
    edges[:, 0] = states.fire_edge
    return Table(edges, torch.maximum(states.threshold + width * (bins + 0.5), least))


def _improve(best: _Best, step: float, states: States) -> bool:
    moved = False
    count = best.table.levels.shape[1]
    stored = count - states.firing(count)
    for which, column, sign in _moves(stored, states):
        parts = [part.clone() for part in best.table]
        if which == _FIRES:
            _move_firing(parts, stored, sign * step, states)
        elif column is None:
            _stretch(parts, which, sign * step, stored, states)
        else:
            parts[which][:, column] += sign * step
        if states.fire_edge is not None:
            parts[0][:, : stored - 1] = parts[0][:, : stored - 1].clamp(max=states.fire_edge)
            parts[1][:, :stored] = parts[1][:, :stored].clamp(max=states.fire_edge)
        moved |= best.offer(Table(*(part.sort(1).values for part in parts)))
    return moved


def _moves(stored: int, states: States) -> Iterator[tuple[int, int | None, float]]:
    """(edges, levels or `_FIRES`, column, sign): each stored level and edge both ways; of many levels only the two ends
    of the grid; and how far the levels of a soft reset reach that fire."""
    if stored > LARGEST_FREE:
        yield from ((end, None, sign) for end in (0, 1) for sign in (1.0, -1.0))
    else:
        for which, columns in ((1, stored), (0, stored - 1)):
            yield from ((which, column, sign) for column in range(columns) for sign in (1.0, -1.0))
    if states.fire_edge is not None and states.soft:
        yield from ((_FIRES, None, sign) for sign in (1.0, -1.0))


def _move_firing(parts: list[Tensor], stored: int, step: float, states: States) -> None:
    """Let the levels that fire reach further, or less far."""
    edges, levels = parts
    count = levels.shape[1] - stored
    width = 2 * (levels[:, stored : stored + 1] - states.threshold).clamp(min=0)
    above = _above(states.threshold + count * width + step, count, states)
    edges[:, stored - 1 :], levels[:, stored:] = above.edges, above.levels


def _stretch(parts: list[Tensor], end: int, step: float, count: int, states: States) -> None:
    """Move one end of the grid of `count` stored levels, and what lies on that side of the rest in proportion."""
    levels = parts[1]
    stored = levels[:, :count]
    side = stored < states.rest if end == 0 else stored > states.rest
    reach = (stored[:, :1] if end == 0 else stored[:, -1:]) - states.rest
    factor = (reach + step) / torch.where(reach == 0, torch.ones_like(reach), reach)
    stretched = torch.where(side & (reach != 0), states.rest + (stored - states.rest) * factor.clamp(0.1, 10), stored)
    levels[:, : stored.shape[1]] = stretched
    middles = (stretched[:, 1:] + stretched[:, :-1]) / 2
    parts[0][:, : middles.shape[1]] = middles
