"""Calibration data that arrives in batches: exact extremes and a bounded sample, in bounded memory."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from isofire.errors import ModelError, SpecError

# 2^64 / golden ratio as a signed 64-bit number: multiples of it, taken mod 2^64, fill the range evenly and share no
# period with image sides, as a plain stride would.
_GOLDEN = 0x9E3779B97F4A7C15 - 2**64
_LEAST = 64
_AT_ONCE = 1 << 15


class RangeObserver:
    """Watch values batch by batch, then calibrate a quantizer with `calibrate_from(observer)`.

    Keeps per group the exact smallest and largest value and a sample of at most `capacity // G` values (64 if that is
    fewer). Which values are sampled depends only on their position in the stream, so one big batch and many small ones
    give the same sample. When the sample is full, about half of it is dropped and half as many are taken from then on.

    Parameters
    ----------
    granularity
        "tensor" or "channel", as in the quantizer.
    channel_axis
        Axis of the channels; 1 for membrane states `[N, C, ...]`.
    capacity
        Values kept over all groups; 2^20 of them take 4 MB.

    Attributes
    ----------
    count
        Values seen per group.
    minimum, maximum
        `[G]` float32, exact.

    Examples
    --------
    >>> observer = RangeObserver()
    >>> for batch in torch.linspace(0, 1, 10).split(5):
    ...     observer.observe(batch)
    >>> observer.extremes()
    tensor([[0., 1.]])
    """

    def __init__(
        self, granularity: Literal["tensor", "channel"] = "tensor", *, channel_axis: int = 1, capacity: int = 1 << 20
    ) -> None:
        if granularity not in ("tensor", "channel"):
            raise SpecError(f"granularity must be 'tensor' or 'channel', got {granularity!r}")
        if capacity < 1:
            raise SpecError(f"capacity must be a whole number >= 1, got {capacity!r}")
        self.granularity = granularity
        self.channel_axis = channel_axis
        self.capacity = capacity
        self.count = 0
        self.minimum = torch.empty(0)
        self.maximum = torch.empty(0)
        self._samples = torch.empty(0, 0)
        self._hashes = torch.empty(0, dtype=torch.int64)
        self._level = 0
        self._shape = torch.Size()

    def groups_as(self, granularity: str, channel_axis: int) -> bool:
        """Whether values are grouped in this way; an axis means nothing where there is one group."""
        same = self.granularity == granularity
        return same and (granularity == "tensor" or self.channel_axis == channel_axis)

    @torch.no_grad()
    def observe(self, x: Tensor) -> None:
        """Take in one batch.

        Raises
        ------
        ModelError
            If it holds NaN or infinite values, or its number of channels differs from that of earlier batches.
        """
        rows = self._rows(x)
        if not rows.shape[1]:
            return
        self._shape = x.shape
        low, high = rows.aminmax(dim=1)
        if not (torch.isfinite(low) & torch.isfinite(high)).all():
            raise ModelError(f"the observed batch, shape {tuple(x.shape)}, holds NaN or infinite values")
        if not self.count:
            self.minimum, self.maximum = low, high
            self._samples, self._hashes = rows[:, :0], self._hashes.to(rows.device)
        elif rows.shape[0] != self.minimum.numel():
            raise ModelError(f"the observer has seen {self.minimum.numel()} channels, this batch has {rows.shape[0]}")
        self.minimum, self.maximum = torch.minimum(self.minimum, low), torch.maximum(self.maximum, high)
        first, self.count = self.count + 1, self.count + rows.shape[1]
        self._take(*self._those_sampled(rows, first))

    def samples(self) -> Tensor:
        """Return the sample, `[G, m]` float32.

        Raises
        ------
        ModelError
            If nothing was observed.
        """
        self._require_data()
        return self._samples

    def extremes(self) -> Tensor:
        """Return the smallest and largest value of each group, `[G, 2]` float32, of everything observed."""
        self._require_data()
        return torch.stack([self.minimum, self.maximum], 1)

    def images(self, count: int = 2) -> Tensor:
        """Return sampled values in the shape of the batch seen last, `[count, ...]`, each in its own group."""
        values, shape = self.samples(), [count, *self._shape[1:]]
        axis = self.channel_axis if self.granularity == "channel" else None
        if axis is not None:
            # of weights, axis 0 holds the channels
            shape[0] = count if axis else len(values)
            shape = [shape[axis], *shape[:axis], *shape[axis + 1 :]]
        places = torch.arange(math.prod(shape) // len(values), device=values.device) % values.shape[1]
        images = values[:, places].reshape(shape)
        return images if axis is None else images.movedim(0, axis).contiguous()

    def merge(self, other: RangeObserver) -> None:
        """Add what another observer saw. Extremes stay exact; the samples are joined at the sparser of both rates.

        Raises
        ------
        SpecError
            If the two group elements differently.
        """
        if not other.count:
            return
        if not self.groups_as(other.granularity, other.channel_axis):
            raise SpecError("observers can be merged only if granularity and channel_axis are the same in both")
        if not self.count:
            self.minimum, self.maximum, self._samples = other.minimum, other.maximum, other._samples[:, :0]
            self._shape = other._shape
        if self.minimum.numel() != other.minimum.numel():
            raise SpecError(f"cannot merge {other.minimum.numel()} channels into {self.minimum.numel()}")
        self.minimum = torch.minimum(self.minimum, other.minimum)
        self.maximum = torch.maximum(self.maximum, other.maximum)
        self.count += other.count
        self._level = max(self._level, other._level)
        self._thin()
        self._take(other._samples, other._hashes)

    def _rows(self, x: Tensor) -> Tensor:
        if self.granularity == "tensor":
            return x.detach().float().reshape(1, -1)
        if x.ndim <= self.channel_axis:
            raise ModelError(f"the observer has channel_axis={self.channel_axis}, the batch has shape {tuple(x.shape)}")
        return x.detach().float().movedim(self.channel_axis, 0).flatten(1)

    def _those_sampled(self, rows: Tensor, first: int) -> tuple[Tensor, Tensor]:
        """The values that the sample takes at the rate so far, and their hashes; `first` is the place of the first."""
        if self._level and rows.device.type == "cpu":
            places, hashes = (torch.from_numpy(part) for part in _sampled_places(first, rows.shape[1], self._level))
            return rows[:, places], hashes
        return rows, torch.arange(first, first + rows.shape[1], device=rows.device) * _GOLDEN

    def _take(self, rows: Tensor, hashes: Tensor) -> None:
        room = max(_LEAST, self.capacity // rows.shape[0])
        while True:
            kept = self._sampled(hashes)
            if self._hashes.numel() + int(kept.sum()) <= room:
                break
            self._level += 1
            self._thin()
        if int(kept.sum()) < kept.numel():
            rows, hashes = rows[:, kept], hashes[kept]
        self._samples = torch.cat([self._samples, rows], 1)
        self._hashes = torch.cat([self._hashes, hashes])

    def _sampled(self, hashes: Tensor) -> Tensor:
        if not self._level:
            return torch.ones_like(hashes, dtype=torch.bool)
        return (hashes >= 0) & (hashes <= (1 << (64 - self._level)) - 1)

    def _thin(self) -> None:
        kept = self._sampled(self._hashes)
        self._samples, self._hashes = self._samples[:, kept], self._hashes[kept]

    def _require_data(self) -> None:
        if not self.count:
            raise ModelError("the observer has seen no values; call observe(x) on some batches first")


def _sampled_places(first: int, count: int, level: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Which of `count` values, of which the first has place `first`, are sampled at a level >= 1, and their hashes."""
    places, kept = [], []
    golden, least = np.uint64(_GOLDEN % 2**64), np.uint64(1 << (64 - level))
    steps = np.arange(min(_AT_ONCE, count), dtype=np.uint64) * golden
    for start in range(0, count, _AT_ONCE):
        # as many at once as a cache holds
        hashes = steps[: count - start] + np.uint64((first + start) * _GOLDEN % 2**64)
        here = (hashes < least).nonzero()[0]
        places.append(here + start)
        kept.append(hashes[here])
    return np.concatenate(places), np.concatenate(kept).view(np.int64)
