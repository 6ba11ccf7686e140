"""Codes of weights as tables of partial sums, and an order of look-ups in which no sum overflows, proven beforehand."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

LARGEST_CODE = 255
"""Codes of 8 bits, also where 0 lies half way between two levels, which makes them odd."""
_ONE_TABLE = 31
"""Four codes of this size still fit a byte's sum."""
_BYTE = (-128, 127)
_SHORT = (-32768, 32767)
_BITS = ((np.arange(16)[None, :] >> np.arange(4)[:, None]) & 1).astype(np.int32)

RUN = np.dtype(
    [("tap", "i4"), ("first", "i4"), ("end", "i4"), ("first_stream", "i4"), ("end_stream", "i4"), ("widen", "i4"),
     ("spill", "i4"), ("pad", "i4"), ("table", "i8")]
)  # fmt: skip
"""Mirrors `struct Run` of _layout.h."""


@dataclass(frozen=True)
class Tables:
    """What a layer looks up.

    Parameters
    ----------
    memory
        int8 [kept, 2, 16]: what four inputs add to the two rows of a pass, by the nibble that they are.
    runs
        Records of `RUN`, as bytes.
    pass_runs
        int64 [passes + 1]: the runs of each pass.
    high_factor
        0 if the rows of a pass are two output channels; else they are the low and the high part of one, and a sum is
        low + high_factor * high.
    together
        Whether every run looks all streams up.
    """

    memory: Tensor
    runs: Tensor
    pass_runs: Tensor
    high_factor: int
    together: bool

    @property
    def passes(self) -> int:
        """Pairs of rows."""
        return self.pass_runs.numel() - 1


def tables_of(codes: Tensor, streams: int) -> Tables:
    """The tables of a convolution whose inputs are the sum of `streams` maps of spikes.

    A sum of byte tables is widened before the next look-up could leave a byte, and spilled before a sum of 16 bits
    could overflow, by the largest and smallest entries of the tables themselves, whatever the inputs are.

    Parameters
    ----------
    codes
        int64 [out, in, height, width], |code| <= `LARGEST_CODE`; layers of groups as dense ones, with zeros.
    """
    rows, factor = _rows(codes.numpy())
    out, inputs, taps = rows.shape
    groups = -(-inputs // 4)
    nibbles = np.zeros((out, groups * 4, taps), np.int32)
    nibbles[:, :inputs] = rows
    sums = np.einsum("ogbk,bv->okgv", nibbles.reshape(out, groups, 4, taps), _BITS, optimize=True)
    pairs = sums.reshape(out // 2, 2, taps, groups, 16).transpose(0, 2, 3, 1, 4)
    kept = pairs.any((-1, -2))
    runs, pass_runs = _runs(pairs, kept, streams)
    whole = bool((runs["end_stream"] - runs["first_stream"] == streams).all())
    memory = torch.from_numpy(np.ascontiguousarray(pairs[kept].astype(np.int8)))
    return Tables(memory, torch.from_numpy(runs.view(np.uint8)), torch.from_numpy(pass_runs), factor, whole)


def _rows(codes: np.ndarray) -> tuple[np.ndarray, int]:
    """Rows [2 * passes, in, taps] and `Tables.high_factor`."""
    flat = codes.reshape(*codes.shape[:2], -1)
    if np.abs(flat).max(initial=0) <= _ONE_TABLE:
        return np.concatenate([flat, np.zeros((len(flat) % 2, *flat.shape[1:]), flat.dtype)]), 0
    factor = 32 if np.abs(flat).max() > 135 else 16
    low = (flat + factor // 2) % factor - factor // 2
    high = (flat - low) // factor
    return np.stack([low, high], 1).reshape(-1, *flat.shape[1:]), factor


def _runs(pairs: np.ndarray, kept: np.ndarray, streams: int) -> tuple[np.ndarray, np.ndarray]:
    """Runs of look-ups in the order tap, streams, group, and where each pass has its own."""
    passes, taps, groups = kept.shape
    top, bottom = np.maximum(pairs.max(-1), 0), np.minimum(pairs.min(-1), 0)
    together = max(1, min(streams, _BYTE[1] // max(1, int(max(top.max(initial=0), -bottom.min(initial=0))))))
    starts = np.arange(0, streams, together)
    widths = np.minimum(together, streams - starts)
    order = np.broadcast_to(kept[:, :, None, :], (passes, taps, len(starts), groups)).reshape(passes, -1)
    if not order.any():
        return _with_empty(np.zeros(0, RUN), np.zeros(0, int), passes, streams)
    weights = widths[None, None, :, None, None]
    widen, spill = _breaks(*((part[:, :, None] * weights).reshape(passes, -1, 2) for part in (top, bottom)))
    which, at = np.nonzero(order)
    tap, part, group = np.unravel_index(at, (taps, len(starts), groups))
    # a break before a look-up that is left out is one before the next that is not
    broken, spilled = (np.diff(np.cumsum(each, 1)[which, at]) > 0 for each in (widen, spill))
    same = (np.diff(which) == 0) & (np.diff(tap) == 0) & (np.diff(part) == 0) & (np.diff(group) == 1)
    first = np.nonzero(np.append(True, ~same | broken))[0]
    last = np.append(first[1:], len(which)) - 1
    ends = np.append(np.diff(which) != 0, True)[last]
    places = (np.cumsum(kept.reshape(-1)) - 1).reshape(kept.shape)
    runs = np.zeros(len(first), RUN)
    runs["tap"], runs["first"], runs["end"] = tap[first], group[first], group[last] + 1
    runs["first_stream"], runs["end_stream"] = starts[part[first]], (starts + widths)[part[first]]
    runs["widen"], runs["spill"] = ends | np.append(broken, True)[last], ~ends & np.append(spilled, False)[last]
    runs["table"] = places[which[first], tap[first], group[first]] * 32
    return _with_empty(runs, which[first], passes, streams)


def _breaks(tops: np.ndarray, bottoms: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Before which look-ups [passes, look-ups] sums are to be widened, and before which of those spilled."""
    passes, count, _ = tops.shape
    widen, spill = np.zeros((passes, count), bool), np.zeros((passes, count), bool)
    high, low = np.zeros((passes, 2), np.int64), np.zeros((passes, 2), np.int64)
    high_short, low_short = high.copy(), low.copy()
    for j in range(count):
        up, down = tops[:, j], bottoms[:, j]
        spill[:, j] = ((high_short + up > _SHORT[1]) | (low_short + down < _SHORT[0])).any(1)
        widen[:, j] = ((high + up > _BYTE[1]) | (low + down < _BYTE[0])).any(1) | spill[:, j]
        high, low = np.where(widen[:, j, None], 0, high) + up, np.where(widen[:, j, None], 0, low) + down
        high_short = np.where(spill[:, j, None], 0, high_short) + up
        low_short = np.where(spill[:, j, None], 0, low_short) + down
    return widen, spill


def _with_empty(runs: np.ndarray, passes_of: np.ndarray, passes: int, streams: int) -> tuple[np.ndarray, np.ndarray]:
    """A pass without a weight has one run of no look-up, which leaves its sums at 0."""
    counts = np.bincount(passes_of, minlength=passes)
    empty = np.zeros(1, RUN)
    empty["widen"], empty["end_stream"] = 1, streams
    parts = np.split(runs, np.cumsum(counts)[:-1])
    whole = np.concatenate([part if len(part) else empty for part in parts])
    return np.ascontiguousarray(whole), np.concatenate([[0], np.cumsum(np.maximum(counts, 1))]).astype(np.int64)
