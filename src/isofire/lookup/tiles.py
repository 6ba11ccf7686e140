"""Few images as many: maps are cut into tiles that are looked up side by side, since a look-up has 32 places."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

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
    """The cut of an output map for which a batch costs least; None if it is best left whole."""
    fits = native.LANES // images if images else 0
    if fits < 2:
        return None
    best = Tiles(1, 1, height, width)
    for rows in range(1, min(fits, height) + 1):
        columns = min(fits // rows, width)
        tiles = Tiles(rows, columns, math.ceil(height / rows), math.ceil(width / columns))
        if tiles.height * tiles.width < best.height * best.width:
            best = tiles
    return None if best.count == 1 else best


def cut(spikes: Tensor, images: int, tiles: Tiles, geometry: Geometry) -> Tensor:
    """What each tile's outputs see of a map [1, H, W, T, groups, 32], as images of their own, zeros beyond the map."""
    made = spikes.new_empty(_shape(images, tiles, tiles.seen(geometry), spikes))
    step = tiles.height * geometry.stride[0], tiles.width * geometry.stride[1]
    native.convert_tiles(_tiling(spikes, made, images, tiles, step, geometry.pad), spikes, made, to_tiles=True)
    return made


def joined(parts: Tensor, images: int, tiles: Tiles, height: int, width: int) -> Tensor:
    """The map [1, H, W, T, groups, 32] whose tiles these are."""
    whole = parts.new_empty((1, height, width, *parts.shape[3:]))
    tiling = _tiling(whole, parts, images, tiles, (tiles.height, tiles.width), (0, 0))
    native.convert_tiles(tiling, whole, parts, to_tiles=False)
    return whole


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


def _shape(images: int, tiles: Tiles, size: tuple[int, int], spikes: Tensor) -> tuple[int, ...]:
    return (-(-images * tiles.count // native.LANES), *size, *spikes.shape[3:])


def _tiling(
    whole: Tensor, parts: Tensor, images: int, tiles: Tiles, step: tuple[int, int], pad: tuple[int, int]
) -> native.Tiling:
    tiling = native.Tiling()
    _, tiling.height, tiling.width, tiling.steps, tiling.groups, _ = whole.shape
    tiling.images, tiling.rows, tiling.columns = images, tiles.rows, tiles.columns
    tiling.tile_height, tiling.tile_width = parts.shape[1:3]
    (tiling.step_y, tiling.step_x), (tiling.from_y, tiling.from_x) = step, (-pad[0], -pad[1])
    return tiling
