from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from isofire.errors import DataError, SpecError
from isofire.quantizers import grids

GRIDS = ["endpoint", "midtread", "twos_complement", "midrise"]


def one(value: float) -> torch.Tensor:
    return torch.tensor([value], dtype=torch.float32)


def symmetric(grid: str, bits: int, hi: float) -> grids.Affine:
    return grids.affine(one(-hi), one(hi), bits, grid)


any_grid = st.tuples(st.sampled_from(GRIDS), st.integers(2, 16), st.floats(2**-20, 2**20, width=32))
values = st.lists(st.floats(-3, 3, width=32), min_size=1, max_size=40)


def test_levels_by_hand() -> None:
    assert grids.levels(symmetric("endpoint", 2, 10))[0].tolist() == pytest.approx([-10, -10 / 3, 10 / 3, 10], rel=1e-6)
    assert grids.levels(symmetric("midtread", 3, 3)).tolist() == [[-3, -2, -1, 0, 1, 2, 3]]
    assert grids.levels(symmetric("twos_complement", 2, 10)).tolist() == [[-10, -5, 0, 5]]
    assert grids.levels(symmetric("midrise", 2, 2)).tolist() == [[-1.5, -0.5, 0.5, 1.5]]
    assert grids.levels(grids.affine(one(0), one(1), 1, "endpoint")).tolist() == [[0, 1]]
    assert grids.levels(symmetric("twos_complement", 1, 2)).tolist() == [[-2, 0]]


def test_ties_go_to_the_even_integer() -> None:
    grid = symmetric("midtread", 4, 7)
    assert grids.fake_quantize(torch.tensor([0.5, 1.5, 2.5, -0.5, -1.5]), grid).tolist() == [0, 2, 2, 0, -2]


@given(any_grid, values)
@settings(max_examples=60, deadline=None)
def test_arithmetic_is_the_stated_float32_expression_bit_for_bit(spec: tuple, xs: list[float]) -> None:
    name, bits, hi = spec
    grid = symmetric(name, bits, hi)
    x = np.array(xs, dtype=np.float32) * np.float32(hi)
    origin, step = grid.origin.numpy()[0], grid.step.numpy()[0]
    k = np.rint(np.clip((x - origin) / step, np.float32(grid.k_min), np.float32(grid.k_max)))
    expected = origin + step * k
    assert expected.dtype == np.float32
    tensor = torch.from_numpy(x)
    np.testing.assert_array_equal(grids.fake_quantize(tensor, grid).numpy(), expected)
    np.testing.assert_array_equal(grids.codes(tensor, grid).numpy(), (k - grid.k_min).astype(np.int32))
    np.testing.assert_array_equal(grids.decode(grids.codes(tensor, grid), grid).numpy(), expected)


@given(any_grid, values)
@settings(max_examples=60, deadline=None)
def test_nearest_level_idempotent_monotone_and_bounded_error(spec: tuple, xs: list[float]) -> None:
    name, bits, hi = spec
    grid = symmetric(name, bits, hi)
    step = grid.step.item()
    levels = grids.levels(grid)[0]
    assert len(levels) == (2**bits - 1 if name == "midtread" else 2**bits)
    assert (levels.diff() > 0).all()
    x = (torch.tensor(xs) * hi).sort().values
    q = grids.fake_quantize(x, grid)
    assert torch.isin(q, levels).all()
    assert torch.equal(grids.fake_quantize(q, grid), q)
    assert (q.diff() >= 0).all()
    inside = (x >= levels[0]) & (x <= levels[-1])
    rounding = 4 * 2.0**-24 * hi
    assert ((q - x).abs()[inside] <= step / 2 + rounding).all()
    nearest = (x.double()[:, None] - levels.double()).abs().amin(1)
    assert ((q.double() - x.double()).abs() <= nearest + rounding).all()


@given(st.floats(-1e3, 1e3, width=32), st.floats(2**-5, 1e3, width=32), st.integers(1, 12))
@settings(max_examples=100, deadline=None)
def test_endpoint_top_level_is_hi_as_closely_as_a_float32_step_allows(lo: float, width: float, bits: int) -> None:
    lo32, hi32 = np.float32(lo), np.float32(lo) + np.float32(width)
    try:
        grid = grids.affine(one(lo32), one(hi32), bits, "endpoint")
    except SpecError:
        return  # too narrow at this distance from 0: tested below
    top = np.float32(2**bits - 1)
    miss = {
        float(s): abs(np.float64(lo32 + np.float32(s) * top) - np.float64(hi32))
        for s in (np.float32(grid.step.item()), *np.nextafter(np.float32(grid.step.item()), np.float32([0, np.inf])))
    }
    assert miss[grid.step.item()] == min(miss.values())
    assert grids.levels(grid)[0, 0] == lo32
    ulp = np.spacing(max(abs(lo32), abs(hi32), hi32 - lo32))
    assert miss[grid.step.item()] <= ulp


def test_parameters_per_channel_act_on_their_axis() -> None:
    hi = torch.tensor([1.0, 2.0, 4.0])
    grid = grids.affine(-hi, hi, 3, "endpoint")
    x = torch.randn(5, 3, 4, generator=torch.Generator().manual_seed(0)) * 2
    q = grids.fake_quantize(x, grid, axis=1)
    for c in range(3):
        alone = grids.affine(-hi[c : c + 1], hi[c : c + 1], 3, "endpoint")
        assert torch.equal(q[:, c], grids.fake_quantize(x[:, c], alone))


@pytest.mark.parametrize("grid", GRIDS)
def test_power_of_two_step_is_nearest_in_log2_and_bounds_are_a_fixed_point(grid: str) -> None:
    hi = torch.logspace(-4, 4, 57)
    exact = grids.affine(-hi, hi, 4, grid)
    rounded = grids.affine(-hi, hi, 4, grid, power_of_two=True)
    exponent = torch.log2(rounded.step.double())
    assert torch.equal(exponent, exponent.round())
    wanted = {"endpoint": 2 * hi / 15, "midtread": hi / 7}.get(grid, hi / 8)
    assert ((exponent - torch.log2(wanted.double())).abs() <= 0.5 + 1e-6).all()
    lo2, hi2 = grids.bounds(rounded, grid)
    assert torch.equal(lo2, -hi2)
    again = grids.affine(lo2, hi2, 4, grid)
    assert torch.equal(again.step, rounded.step)
    assert torch.equal(again.origin, rounded.origin)
    assert exact.k_min == rounded.k_min


def test_power_of_two_keeps_lo_of_an_unsigned_range() -> None:
    grid = grids.affine(one(0), one(1), 2, "endpoint", power_of_two=True)
    assert grids.levels(grid).tolist() == [[0, 0.25, 0.5, 0.75]]


@pytest.mark.parametrize("grid", GRIDS)
def test_bounds_undo_affine(grid: str) -> None:
    lo, hi = grids.bounds(symmetric(grid, 5, 3.7), grid)
    assert (lo.item(), hi.item()) == pytest.approx((-3.7, 3.7), rel=1e-6)


@pytest.mark.parametrize("bits", [0, 17, 99, 2.0, True])
def test_bits_out_of_range(bits: object) -> None:
    with pytest.raises(SpecError, match=r"whole number in 1\.\.16, got"):
        grids.check_bits(bits)  # type: ignore[arg-type]


def test_refused_grids_and_ranges() -> None:
    with pytest.raises(SpecError, match="midtread' needs bits >= 2"):
        symmetric("midtread", 1, 1)
    with pytest.raises(SpecError, match="grid must be one of"):
        symmetric("mid-tread", 2, 1)
    for grid in GRIDS[1:]:
        with pytest.raises(SpecError, match="needs a symmetric range"):
            grids.affine(one(0), one(1), 4, grid)
    for lo, hi in ((1, 1), (2, 1), (float("nan"), 1), (0, float("inf"))):
        with pytest.raises(SpecError, match="finite bounds with lo < hi"):
            grids.affine(one(lo), one(hi), 4, "endpoint")
    with pytest.raises(SpecError, match="cannot hold 65536 distinct"):
        grids.affine(one(1000), one(1000.5), 16, "endpoint")


def test_codes_outside_are_refused() -> None:
    grid = symmetric("endpoint", 2, 1)
    for bad in (torch.tensor([4]), torch.tensor([-1])):
        with pytest.raises(DataError, match=r"codes must lie in 0\.\.3"):
            grids.decode(bad, grid)
    with pytest.raises(DataError, match="must be integers"):
        grids.decode(torch.tensor([1.0]), grid)


@pytest.mark.parametrize("bits", [2, 3, 8])
def test_twos_complement_takes_its_outermost_levels(bits: int) -> None:
    half = 2 ** (bits - 1)
    lo, hi = torch.tensor([-float(half)]), torch.tensor([float(half - 1)])
    parameters = grids.affine(lo, hi, bits, "twos_complement")
    assert grids.levels(parameters)[0].tolist() == list(range(-half, half))
    assert torch.equal(grids.levels(parameters), grids.levels(grids.affine(lo, -lo, bits, "twos_complement")))
    with pytest.raises(SpecError, match="or its outermost levels"):
        grids.affine(lo, hi - 0.5, bits, "twos_complement")
    with pytest.raises(SpecError, match=r"needs a symmetric range, lo = -hi, got"):
        grids.affine(lo, hi, bits, "midtread")
