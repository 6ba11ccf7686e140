"""Maps of few images cut into tiles, from whole ones and from other tiles, beside slices of the plain tensor."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from isofire.lookup import native
from isofire.lookup.affine import Geometry
from isofire.lookup.tiles import SpikeMap, Tiles, tiles_for, totals

pytestmark = pytest.mark.skipif(native.library() is None, reason="the look-ups were not compiled")
sizes = st.tuples(st.integers(1, 12), st.integers(1, 12))


def _tiles(draw: Any, images: int, height: int, width: int) -> Tiles:
    best = tiles_for(images, height, width)
    if best is not None and draw(st.booleans()):
        return best
    rows = draw(st.integers(1, min(height, 32 // images)))
    columns = draw(st.integers(1, min(width, 32 // images // rows)))
    return Tiles(rows, columns, -(-height // rows), -(-width // columns))


def _seen(x: Tensor, tiles: Tiles, geometry: Geometry) -> Tensor:
    """What every tile sees of x [T, N, C, H, W], [T, N * tiles, C, h, w]."""
    (high, wide), far = tiles.seen(geometry), 64
    padded = F.pad(x, (geometry.pad[1], far, geometry.pad[0], far))
    found = [
        padded[:, image, :, top : top + high, left : left + wide]
        for image in range(x.shape[1])
        for top in range(0, tiles.rows * tiles.height * geometry.stride[0], tiles.height * geometry.stride[0])
        for left in range(0, tiles.columns * tiles.width * geometry.stride[1], tiles.width * geometry.stride[1])
    ]
    return torch.stack(found, 1)


def _values(parts: Tensor, images: int, channels: int) -> Tensor:
    return native.unpack((parts,), images, channels)


@given(st.data())
def test_tiles_of_tiles_are_those_of_the_map(data: st.DataObject) -> None:
    draw = data.draw
    images, channels, steps = draw(st.integers(1, 16)), draw(st.integers(1, 9)), draw(st.integers(1, 5))
    height, width = draw(sizes)
    torch.manual_seed(draw(st.integers(0, 2**16)))
    x = (torch.rand(steps, images, channels, height, width) < 0.5).float()
    whole = SpikeMap(native.pack(x, 1)[0], images, (height, width))
    one_by_one = Geometry((1, 1), (1, 1), (0, 0), (1, 1))
    first = _tiles(draw, images, height, width)
    parts = whole.cut(first, one_by_one)
    assert torch.equal(_values(parts, images * first.count, channels), _seen(x, first, one_by_one))
    # what tiles hold beyond the map is anything, as look-ups leave it
    beyond = native.pack(_seen(torch.ones_like(x), first, one_by_one), 1)[0] == 0
    parts |= beyond * torch.randint(0, 16, parts.shape, dtype=torch.uint8)
    tiled = SpikeMap(parts, images, (height, width), first)
    assert torch.equal(_values(tiled.whole, images, channels), x)
    kernel = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    pad = draw(st.integers(0, 2)), draw(st.integers(0, 2))
    geometry = Geometry(kernel, (draw(st.integers(1, 2)), draw(st.integers(1, 2))), pad, (1, 1))
    out = geometry.out_size(height, width)
    if min(out) > 0:
        second = _tiles(draw, images, *out)
        expected = _seen(x, second, geometry)
        for source in (tiled, whole):
            assert torch.equal(_values(source.cut(second, geometry), images * second.count, channels), expected)
    assert torch.equal(totals((tiled, tiled), channels), 2 * x.sum((-2, -1), keepdim=True))
    assert torch.equal(totals((tiled, whole), channels), 2 * x.sum((-2, -1), keepdim=True))


def test_tiles_are_the_squarest_of_the_cheapest() -> None:
    """A 3x3 convolution sees 6 x 10 places beside 8 x 4 outputs, 34 x 3 beside a column of 32."""
    assert tiles_for(1, 32, 32) == Tiles(4, 8, 8, 4)
    assert tiles_for(2, 8, 8) == Tiles(4, 4, 2, 2)
    assert tiles_for(16, 3, 3) == Tiles(1, 2, 3, 2)
    assert tiles_for(17, 32, 32) is None
    assert tiles_for(1, 1, 1) is None
