"""Maps of spikes and small counts between layers: packed as nibbles, or as plain floats."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional as F

from isofire.lookup import native
from isofire.lookup.tiles import SpikeMap, totals

MOST_STREAMS = 16
"""Counts up to this are packed; each stream costs a look-up of its own."""

Pair = tuple[int, int]


@dataclass(frozen=True)
class Window:
    """Size, stride and padding of a pool."""

    size: Pair
    stride: Pair
    pad: Pair


class Counts(ABC):
    """Whole numbers [T, N, C, H, W], 0 to `most`."""

    shape: tuple[int, int, int, int, int]
    most: int

    @abstractmethod
    def dense(self) -> Tensor:
        """As float32 [T, N, C, H, W]."""

    def packed(self) -> PackedCounts | None:
        """As nibbles; None if the counts are too large or nothing can be packed."""
        return None

    def plus(self, other: Counts) -> Counts:
        """The sums."""
        return DenseCounts(self.dense() + other.dense(), self.most + other.most)

    def times(self, other: Counts) -> Counts:
        """The products."""
        return DenseCounts(self.dense() * other.dense(), self.most * other.most)

    def complement(self) -> Counts:
        """1 minus the spikes, of counts up to 1."""
        return DenseCounts(1.0 - self.dense(), 1)

    def max_pool(self, window: Window) -> Counts:
        """The largest count of each window."""
        x = self.dense()
        pooled = F.max_pool2d(x.flatten(0, 1), window.size, window.stride, window.pad)
        return DenseCounts(pooled.unflatten(0, x.shape[:2]), self.most)

    def sum_pool(self, window: Window) -> Counts:
        """The sum of each window, zeros beyond the border."""
        x = self.dense()
        pooled = F.avg_pool2d(x.flatten(0, 1), window.size, window.stride, window.pad, divisor_override=1)
        return DenseCounts(pooled.unflatten(0, x.shape[:2]), self.most * window.size[0] * window.size[1])


class DenseCounts(Counts):
    """Counts as a float tensor; packed once, when a layer asks for it."""

    def __init__(self, values: Tensor, most: int) -> None:
        steps, images, channels, height, width = values.shape
        self.shape = steps, images, channels, height, width
        self.most, self._values = most, values

    def dense(self) -> Tensor:
        return self._values

    def packed(self) -> PackedCounts | None:
        return self._packed

    @cached_property
    def _packed(self) -> PackedCounts | None:
        fits = 1 <= self.most <= MOST_STREAMS and self._values.dtype == torch.float32
        if native.library() is None or not fits or self._values.device.type != "cpu" or not self._values.numel():
            return None
        size, streams = self.shape[3:], native.pack(self._values, self.most)
        return PackedCounts(tuple(SpikeMap(stream, self.shape[1], size) for stream in streams), self.shape[2])


class PackedCounts(Counts):
    """The sum of `maps` of spikes of as many channels."""

    def __init__(self, maps: tuple[SpikeMap, ...], channels: int) -> None:
        first = maps[0]
        self.shape = first.parts.shape[3], first.images, channels, *first.size
        self.most, self.maps = len(maps), maps

    @property
    def streams(self) -> tuple[Tensor, ...]:
        """Each uint8 [blocks of 32 images, H, W, T, C / 4, 32]: a bit a channel, lowest first."""
        return tuple(each.whole for each in self.maps)

    def dense(self) -> Tensor:
        return self._dense

    @cached_property
    def _dense(self) -> Tensor:
        return native.unpack(self.streams, self.shape[1], self.shape[2])

    def packed(self) -> PackedCounts:
        return self

    def plus(self, other: Counts) -> Counts:
        both = other.packed()
        if both is None or self.most + both.most > MOST_STREAMS:
            return super().plus(other)
        return PackedCounts((*self.maps, *both.maps), self.shape[2])

    def times(self, other: Counts) -> Counts:
        both = other.packed()
        if both is None or self.most * both.most > MOST_STREAMS:
            return super().times(other)
        # (a + b) (c + d): a spike of the product is one of both
        return self._with(tuple(a & b for a in self.streams for b in both.streams))

    def complement(self) -> Counts:
        (spikes,) = self.streams
        valid = torch.full((spikes.shape[4], 1), 15, dtype=torch.uint8)
        if self.shape[2] % 4:
            valid[-1] = (1 << (self.shape[2] % 4)) - 1
        return self._with((spikes ^ valid,))

    def max_pool(self, window: Window) -> Counts:
        if self.most > 1:
            return super().max_pool(window)
        pooled: Tensor | None = None
        for part in self._windows(window):
            pooled = part if pooled is None else pooled.bitwise_or_(part)
        assert pooled is not None
        return self._with((pooled,))

    def sum_pool(self, window: Window) -> Counts:
        if window.size == self.shape[3:] and not any(window.pad):
            return DenseCounts(totals(self.maps, self.shape[2]), self.most * window.size[0] * window.size[1])
        if self.most * window.size[0] * window.size[1] > MOST_STREAMS:
            return super().sum_pool(window)
        return self._with(tuple(self._windows(window)))

    def _with(self, streams: tuple[Tensor, ...]) -> PackedCounts:
        size = streams[0].shape[1], streams[0].shape[2]
        return PackedCounts(tuple(SpikeMap(stream, self.shape[1], size) for stream in streams), self.shape[2])

    def _windows(self, window: Window) -> list[Tensor]:
        """A map for each place in the window and each stream, of the size of the pooled one."""
        (high, wide), (down, along), (top, left) = window.size, window.stride, window.pad
        height = (self.shape[3] + 2 * top - high) // down + 1
        width = (self.shape[4] + 2 * left - wide) // along + 1
        parts = []
        for stream in self.streams:
            padded = F.pad(stream, (0, 0, 0, 0, 0, 0, left, left, top, top)) if top or left else stream
            for y in range(high):
                for x in range(wide):
                    part = padded[:, y : y + down * height : down, x : x + along * width : along]
                    parts.append(part[:, :height, :width].clone(memory_format=torch.contiguous_format))
        return parts
