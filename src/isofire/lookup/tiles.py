"""Few images as many: maps are cut into tiles that are looked up side by side, since a look-up has 32 places."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache, cached_property

from torch import Tensor
from torch.nn import functional as F

from isofire.lookup import native
from isofire.lookup.affine import Geometry


@dataclass(frozen=True)
class Tiles:
    """Rows and columns of tiles, each of `height` x `width` outputs; the last may reach beyond the map."""

    rows: int
    columns: int
    height: int
    width: int

    @property
    def count(self) -> int:
        """Tiles of an image."""
        return self.rows * self.columns

    def seen(self, geometry: Geometry) -> tuple[int, int]:
        """Height and width of what a tile's outputs see."""
        return (
            (self.height - 1) * geometry.stride[0] + geometry.dilation[0] * (geometry.kernel[0] - 1) + 1,
            (self.width - 1) * geometry.stride[1] + geometry.dilation[1] * (geometry.kernel[1] - 1) + 1,
        )


@cache
def tiles_for(images: int, height: int, width: int) -> Tiles | None:
    """The cut of an output map for which a batch costs least; None if it is best left whole.

    Of those, the squarest tiles: their outputs see least beyond them.
    """
    fits = native.LANES // images if images else 0
    if fits < 2:
        return None
    best = Tiles(1, 1, height, width)
    for rows in range(1, min(fits, height) + 1):
        columns = min(fits // rows, width)
        tiles = Tiles(rows, columns, math.ceil(height / rows), math.ceil(width / columns))
        if (tiles.height * tiles.width, tiles.height + tiles.width) < (
            best.height * best.width,
            best.height + best.width,
        ):
            best = tiles
    return None if best.count == 1 else best


class SpikeMap:
    """Spikes [T, N, C, H, W], packed, whole or as tiles of few images.

    Parameters
    ----------
    parts
        uint8 [blocks of 32 images or tiles, h, w, T, C / 4, 32]; what tiles hold beyond the map is anything.
    images, size
        N, and H and W.
    """

    def __init__(self, parts: Tensor, images: int, size: tuple[int, int], tiles: Tiles | None = None) -> None:
        self.parts, self.images, self.size, self.tiles = parts, images, size, tiles

    @cached_property
    def whole(self) -> Tensor:
        """uint8 [blocks of 32 images, H, W, T, C / 4, 32]."""
        return self.parts if self.tiles is None else self._cut(Tiles(1, 1, *self.size), self.size, (0, 0), (0, 0))

    def cut(self, tiles: Tiles, geometry: Geometry) -> Tensor:
        """What each tile's outputs see, as images of their own, zeros beyond the map."""
        step = tiles.height * geometry.stride[0], tiles.width * geometry.stride[1]
        return self._cut(tiles, tiles.seen(geometry), step, geometry.pad)

    @property
    def share(self) -> int | None:
        """Images or tiles that an image takes, if all of them lie in the map to the last place."""
        if self.tiles is None:
            return 1
        even = (self.tiles.rows * self.tiles.height, self.tiles.columns * self.tiles.width) == self.size
        return self.tiles.count if even else None

    def _cut(self, tiles: Tiles, seen: tuple[int, int], step: tuple[int, int], pad: tuple[int, int]) -> Tensor:
        made = self.parts.new_empty((1, *seen, *self.parts.shape[3:]))
        tiling, mine = native.Tiling(), self.tiles or Tiles(1, 1, *self.size)
        tiling.inner, tiling.images = self.parts.shape[3] * self.parts.shape[4], self.images
        tiling.height, tiling.width = self.size
        tiling.from_rows, tiling.from_columns = mine.rows, mine.columns
        tiling.from_height, tiling.from_width = mine.height, mine.width
        tiling.rows, tiling.columns = tiles.rows, tiles.columns
        (tiling.tile_height, tiling.tile_width), (tiling.step_y, tiling.step_x) = seen, step
        tiling.top, tiling.left = pad
        native.retile(tiling, self.parts, made)
        return made


def totals(maps: tuple[SpikeMap, ...], channels: int) -> Tensor:
    """Spikes over each whole map, float32 [T, N, C, 1, 1], of the sum of maps."""
    share, images = maps[0].share, maps[0].images
    if share is None or any(each.tiles != maps[0].tiles for each in maps):
        return native.totals(tuple(each.whole for each in maps), images, channels)
    return native.totals(tuple(each.parts for each in maps), images, channels, share)


def cut_real(x: Tensor, tiles: Tiles, geometry: Geometry) -> Tensor:
    """As `cut`, of real inputs [..., N, C, H, W]: [..., N * tiles, C, h, w]."""
    (high, wide), (top, left) = tiles.seen(geometry), geometry.pad
    step = tiles.height * geometry.stride[0], tiles.width * geometry.stride[1]
    below = max(0, (tiles.rows - 1) * step[0] + high - top - x.shape[-2])
    right = max(0, (tiles.columns - 1) * step[1] + wide - left - x.shape[-1])
    padded = F.pad(x, (left, right, top, below))
    parts = padded.unfold(-2, high, step[0]).unfold(-2, wide, step[1])[..., : tiles.rows, : tiles.columns, :, :]
    # [..., N, C, rows, columns, h, w]
    return parts.movedim(-5, -3).flatten(-6, -4)
