"""A quantizer as levels and edges: every bit of its forward pass, ties and signed zeros included."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from isofire.quantizers import LSQ, Levels, LQNet, Quantizer, TaWQ, Uniform
from isofire.quantizers.table import Table, find_edges

GRIDS = ("endpoint", "midtread", "twos_complement", "midrise")


def around(edges: torch.Tensor, levels: torch.Tensor) -> torch.Tensor:
    """Every edge and level with its float32 neighbours, halves between levels (ties), and special numbers: [G, n]."""
    finite = torch.where(edges.isfinite(), edges, 0.0)
    parts = [finite, levels, (levels[:, 1:] + levels[:, :-1]) / 2]
    for towards in (-torch.inf, torch.inf):
        parts += [part.nextafter(torch.tensor(towards)) for part in parts[:3]]
    special = torch.tensor([0.0, -0.0, 1e-45, -1e-45, 1e-38, -1e-38, 1.0, -1.0, 3e38, -3e38, 0.5, -0.5])
    return torch.cat([*parts, special.expand(levels.shape[0], -1), torch.randn(levels.shape[0], 500)], 1)


def assert_equal_bits(quantizer: Quantizer) -> None:
    with torch.no_grad():
        table = quantizer.table()
        assert table is not None
        assert table.edges.dtype == table.levels.dtype == torch.float32
        assert (table.edges[:, 1:] >= table.edges[:, :-1]).all()
        x = around(*table)
        # by definition: as many edges as lie strictly below
        pairs = zip(table.edges.numpy(), x.numpy(), strict=True)
        rows = [np.searchsorted(edges, row, side="left") for edges, row in pairs]
        place = torch.from_numpy(np.stack(rows))
        expected = table.levels.gather(1, place)
        x = x if quantizer.axis == 0 else x.T if quantizer.axis == 1 else x[0]
        expected = expected if quantizer.axis == 0 else expected.T if quantizer.axis == 1 else expected[0]
        assert torch.equal(quantizer(x).view(torch.int32), expected.contiguous().view(torch.int32))
        assert torch.equal(table.quantize(x, quantizer.axis).view(torch.int32), expected.contiguous().view(torch.int32))


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("bits", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("hi", [1.0, 0.1, 3.7, 2.0**-80, 1e30])
def test_uniform(grid: str, bits: int, hi: float) -> None:
    if grid == "midtread" and bits == 1:
        return
    assert_equal_bits(Uniform(bits, grid=grid, range=(-hi, hi)))


@given(st.floats(-4, 4, width=32), st.floats(2**-6, 4, width=32), st.integers(1, 6), st.booleans())
@example(-0.0, 2.0, 1, False)
@settings(max_examples=60, deadline=None)
def test_uniform_asymmetric(lo: float, width: float, bits: int, power: bool) -> None:
    assert_equal_bits(Uniform(bits, range=(lo, lo + width), power_of_two=power))


@pytest.mark.parametrize("axis", [0, 1])
def test_per_channel(axis: int) -> None:
    w = torch.randn(5, 64, generator=torch.Generator().manual_seed(0)) * torch.logspace(-3, 1, 5)[:, None]
    w = w if axis == 0 else w.T
    layout = {"granularity": "channel", "channel_axis": axis}
    for quantizer in (
        Uniform(3, range="mse", grid="midrise", **layout),
        LSQ(3, **layout),
        LQNet(3, iterations=20, **layout),
        Levels(5, **layout),
    ):
        quantizer.calibrate(w)
        assert_equal_bits(quantizer.eval())


def test_channels_on_a_later_axis() -> None:
    states = torch.randn(2, 3, 4, 5)
    quantizer = Uniform(3, range="minmax", granularity="channel", channel_axis=3)
    quantizer.calibrate(states)
    table = quantizer.eval().table()
    assert torch.equal(table.quantize(states, 3), quantizer(states))


def test_sixteen_bits() -> None:
    assert_equal_bits(Uniform(16, range=(-1.0, 1.0)))


@pytest.mark.parametrize("clip", [None, (-0.5, 0.3), (0.0, 0.1), (-9.0, 9.0)])
def test_lqnet_with_clip(clip: tuple[float, float] | None) -> None:
    quantizer = LQNet(3, granularity="tensor", clip=clip, iterations=0)
    quantizer.calibrate(torch.randn(400, generator=torch.Generator().manual_seed(1)))
    # a clip narrower than the levels, as after a basis has been loaded
    quantizer.basis.copy_(torch.tensor([[0.1, 0.2, 0.5]]))
    assert_equal_bits(quantizer)


def test_lqnet_of_equal_levels() -> None:
    quantizer = LQNet(2, granularity="tensor", iterations=0)
    quantizer.calibrate(torch.tensor([-1.0, 1.0]))
    quantizer.basis.copy_(torch.tensor([[0.0, 1.0]]))
    assert_equal_bits(quantizer)


def test_only_what_is_fixed_has_a_table() -> None:
    w = torch.randn(4, 9)
    following, learning, basis = Uniform(4, range="minmax"), LSQ(4), LQNet(2)
    for quantizer in (following, learning, basis):
        quantizer.calibrate(w)
        assert quantizer.table() is None
        assert not quantizer.is_fixed
    with torch.no_grad():
        assert following.table() is None
        assert learning.table() is not None
        assert basis.table() is not None
    assert following.eval().table() is not None
    assert basis.eval().table() is not None
    # the step has a gradient in eval mode too
    assert learning.eval().table() is None
    temporal = TaWQ(2)
    temporal.calibrate(w)
    assert temporal.eval().table() is None


def test_gradient_range_is_where_the_gradient_passes() -> None:
    for quantizer in (Uniform(2, range=(-1, 2), ste="clipped"), Levels([-1.0, 0.25, 2.0], ste="clipped")):
        x = torch.linspace(-3, 3, 25).requires_grad_()
        quantizer(x).sum().backward()
        lo, hi = quantizer.gradient_range()
        assert torch.equal(x.grad, ((x >= lo) & (x <= hi)).float())
    assert Uniform(2, ste="plain").gradient_range() is None
    assert Levels([0.0, 1.0]).gradient_range() is None


def test_find_edges_at_the_ends_of_float32() -> None:
    most = torch.finfo(torch.float32).max
    always, never = (find_edges(lambda x, n=n: torch.full_like(x, n), 1, 2, torch.device("cpu")) for n in (1, 0))
    assert always.item() == -torch.inf
    assert never.item() == torch.inf
    last = find_edges(lambda x: (x >= most).int(), 1, 2, torch.device("cpu"))
    assert last.item() == torch.tensor(most).nextafter(torch.tensor(0.0)).item()
    first = find_edges(lambda x: (x > -most).int(), 1, 2, torch.device("cpu"))
    assert first.item() == -most
    zero = find_edges(lambda x: (x > 0).int(), 1, 2, torch.device("cpu"))
    assert zero.item() == 0.0


def test_one_row_serves_every_channel() -> None:
    table = Table(torch.tensor([[0.0]]), torch.tensor([[-1.0, 1.0]]))
    assert table.quantize(torch.tensor([[0.5, 0.0], [-1.0, 2.0]]), 1).tolist() == [[1, -1], [-1, 1]]
