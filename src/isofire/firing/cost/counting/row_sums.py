"""Sums of what arrives at weights in one operation: events times fan-outs, non-zero inputs, multiplications."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from isofire.firing.cost.counting.contents import Contents, content
from isofire.firing.cost.events.events import Source, is_whole
from isofire.firing.cost.following.contacts import Arrival, Contact, Which

_NEAR = 1e-5
_CALLS = 8
"""Calls of a layer that see something new, with which later ones are compared."""


class RowSums:
    """Sums of contacts, whose fan-outs are kept as long as the weights hold the same.

    Parameters
    ----------
    is_stored
        Whether weights are the model's own, and not made in a forward.
    keep
        Whether rows are given too.
    """

    def __init__(self, is_stored: Callable[[Tensor | None], bool], *, keep: bool) -> None:
        self._is_stored, self._keep = is_stored, keep
        self._fans: dict[tuple[Any, ...], tuple[bytes, Tensor]] = {}
        self._contents = Contents()
        self._seen: dict[int, list[tuple[Tensor, list[int]]]] = {}

    def begin(self) -> None:
        """A forward pass; keys are of one."""
        self._seen.clear()

    def of(self, contact: Contact) -> tuple[Tensor, list[int] | None, Tensor | None]:
        """Sums [7, rows] (see `isofire.firing.cost.counting.tally`), of each row a key of what is done with it, and
        where rows are kept these; None where they do not come from the image alone."""
        arrival, x = contact.arrival, contact.arrival.x
        if x is None:
            assert arrival.synapses is not None
            products = [0, 0, 0, *[arrival.synapses] * 2, 0, arrival.synapses]
            return torch.tensor(products, dtype=torch.float64).unsqueeze(1), None, None
        x = x.detach().resolve_conj().resolve_neg()
        assert arrival.weight is not None
        held = self._contents.of(arrival.weight) if self._is_stored(arrival.weight) else None
        rows = _rows(x, arrival.axis)
        events = contact.events.count
        if contact.constant and is_whole(x):
            # at rest nothing arrives at weights that see spikes later
            events = x.double()
        counts = None if events is None else _rows(events.detach(), arrival.axis)
        sums, alone = self._summed(arrival, rows, counts, held), _of_the_image(contact, rows, counts)
        keys = None if alone is None else self._keys(arrival, alone, held)
        # a forward may write over them
        return sums, keys, alone.clone() if self._keep and alone is not None else None

    def _summed(self, arrival: Arrival, rows: Tensor, counts: Tensor | None, held: bytes | None) -> Tensor:
        every, real = self._fan(arrival, "all", held), self._fan(arrival, "nonzero", held)
        active = (rows != 0).double()
        nothing, dense = active.new_zeros(len(rows)), every.sum(-1).expand(len(rows))
        parts = [nothing if counts is None else _times(counts, fan) for fan in (every, real)]
        multiplied = dense if counts is None else nothing
        if counts is not None and not bool(parts[0].isfinite().all()):
            unknown = ~counts.isfinite()
            parts = [_times(counts.masked_fill(unknown, 0), fan) for fan in (every, real)]
            multiplied = _times(unknown.double(), every)
        # of two complex numbers four products are taken, two of them by `fan`
        twice = 2 if rows.is_complex() and bool(rows.imag.any()) else 1
        sizes = torch.full_like(dense, rows.shape[1])
        parts += [active.sum(1), twice * _times(active, real), twice * dense, sizes, twice * multiplied]
        return torch.stack(parts).cpu()

    def _keys(self, arrival: Arrival, rows: Tensor, held: bytes | None) -> list[int]:
        """Of each row, of what is done with it: with which weights, and how."""
        assert arrival.weight is not None
        assert arrival.x is not None
        weight = arrival.weight.detach()
        place = weight.untyped_storage()._cdata, weight.storage_offset(), weight.stride()
        # what is made, or written, may be made otherwise at each step
        weights = content(weight) if held is None else (place, held)
        shape = (*arrival.x.shape[: arrival.axis], *arrival.x.shape[arrival.axis + 1 :])
        work = hash((weights, weight.shape, arrival.options, shape))
        # -0 is 0
        keys = [hash((work, content(row))) for row in rows + 0]
        return self._near(work, rows, keys) if rows.is_floating_point() or rows.is_complex() else keys

    def _near(self, work: int, rows: Tensor, keys: list[int]) -> list[int]:
        """Rows that differ from those of a call before by rounding alone, as what one layer made of an image that was
        repeated may, have the keys of these."""
        seen = self._seen.setdefault(work, [])
        known = {key for _, its in seen for key in its}
        room = max(_NEAR, 2 * torch.finfo(rows.dtype).eps)
        for before, its in seen:
            if known.issuperset(keys):
                return keys
            if before.shape == rows.shape:
                near = (rows - before).abs().amax(1) <= room * before.abs().amax(1)
                keys = [old if same else new for old, new, same in zip(its, keys, near.tolist(), strict=True)]
        if not known.issuperset(keys) and len(seen) < _CALLS:
            # a forward may write over them
            seen.append((rows.clone(), keys))
        return keys

    def _fan(self, arrival: Arrival, which: Which, held: bytes | None) -> Tensor:
        weight, x = arrival.weight, arrival.x
        assert weight is not None
        assert x is not None
        place = weight.untyped_storage()._cdata, weight.storage_offset()
        key = (which, place, tuple(weight.shape), weight.stride(), tuple(x.shape), arrival.axis, arrival.options)
        # what is written into weights may be 0 where they were not
        before, found = self._fans.get(key, (None, None))
        if held is not None and before == held and found is not None:
            return found
        fan = arrival.fan_out(which).to(x.device).expand(x.shape)
        # as a rule all rows have the same
        same = x.ndim < 2 or fan.stride(arrival.axis) == 0 or x.shape[arrival.axis] == 1
        found = _rows(fan, arrival.axis)[:1].flatten() if same else _rows(fan, arrival.axis)
        if held is not None:
            self._fans[key] = held, found
        return found


def _of_the_image(contact: Contact, rows: Tensor, counts: Tensor | None) -> Tensor | None:
    """Rows that come from the image alone; beside spikes those of their numbers that do, and 0 for the rest."""
    if counts is not None and bool(counts.isinf().any()):
        return None if bool(counts.isnan().any()) else rows.masked_fill(~counts.isinf(), 0)
    return rows if contact.source == Source.INPUT else None


def near_of(rows: Tensor) -> float:
    """By how much of the largest number rounding may move a row's."""
    return max(_NEAR, 16 * torch.finfo(rows.dtype).eps) if rows.dtype.is_floating_point or rows.is_complex() else 0.0


def _rows(x: Tensor, axis: int) -> Tensor:
    """[rows, inputs of one]."""
    return x.movedim(axis, 0).flatten(1) if x.ndim > 1 else x.reshape(1, -1)


def _times(rows: Tensor, fan: Tensor) -> Tensor:
    """[rows, inputs] weighted by [inputs], or by [rows, inputs]."""
    return rows @ fan if fan.ndim == 1 else (rows * fan).sum(1)
