from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, optimize, stats
from scipy.special import lambertw

from isofire.errors import SpecError
from isofire.quantizers import grids, ranges


def sample(groups: int = 4, n: int = 501, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(groups, n, generator=generator) * torch.logspace(-2, 1, groups)[:, None]


def test_minmax() -> None:
    x = torch.tensor([[-3.0, 1.0], [0.5, 0.25]])
    assert [b.tolist() for b in ranges.minmax(x, 4, "endpoint")] == [[-3, -0.5], [3, 0.5]]
    assert [b.tolist() for b in ranges.minmax(x, 4, "endpoint", signed=False)] == [[0, 0], [1, 0.5]]


@given(st.floats(0.1, 100), st.integers(1, 400), st.booleans())
@settings(max_examples=50, deadline=None)
def test_percentile_equals_numpy(percentile: float, n: int, signed: bool) -> None:
    x = sample(3, n)
    y = x.abs() if signed else x.clamp(min=0)
    expected = np.percentile(y.double().numpy(), percentile, axis=1)
    lo, hi = ranges.percentile(x, 4, "endpoint", percentile=percentile, signed=signed)
    usual = expected > 0
    np.testing.assert_allclose(hi.numpy()[usual], expected[usual], rtol=1e-5)
    assert torch.equal(lo, -hi if signed else torch.zeros(3))


def test_percentile_of_sparse_data_falls_back_to_the_maximum() -> None:
    x = torch.zeros(1, 10_000)
    x[0, 7] = 0.5
    assert ranges.percentile(x, 4, "endpoint", percentile=99)[1].item() == 0.5


def test_ksigma() -> None:
    x = sample() + torch.tensor([[0.1], [-0.3], [0.0], [5.0]])
    mean, sigma = x.double().mean(1), x.double().std(1, correction=0)
    torch.testing.assert_close(ranges.ksigma(x, 4, "endpoint", k=2.5)[1].double(), mean.abs() + 2.5 * sigma)
    expected = mean + 2.5 * sigma
    assert expected[1] < 0 < x[1].amax() or expected[1] > 0
    expected[expected <= 0] = x.amax(1).double().clamp(min=2**-64)[expected <= 0]
    torch.testing.assert_close(ranges.ksigma(x, 4, "endpoint", k=2.5, signed=False)[1].double(), expected)


@pytest.mark.parametrize("grid", ["endpoint", "midtread", "twos_complement", "midrise"])
@pytest.mark.parametrize("power_of_two", [False, True])
def test_mse_finds_the_best_fraction_of_this_grid(grid: str, power_of_two: bool) -> None:
    x = sample(12, 57)
    lo, hi = ranges.mse(x, 3, grid, power_of_two=power_of_two)
    # percent of max|x| at which the top of the 3-bit grid reaches max|x|, times sqrt(2) where the step is rounded
    last = {"endpoint": (100, 142), "midtread": (100, 142), "twos_complement": (134, 189), "midrise": (115, 162)}

    def error(row: torch.Tensor, c: torch.Tensor) -> float:
        levels = grids.levels(grids.affine(-c[None], c[None], 3, grid, power_of_two=power_of_two))[0].double()
        return (row.double()[:, None] - levels).abs().amin(1).square().sum().item()

    for row, found in zip(x, hi, strict=True):
        best = min(error(row, row.abs().max() * i / 100) for i in range(1, last[grid][power_of_two] + 1))
        assert error(row, found) == pytest.approx(best, rel=1e-5)
    assert torch.equal(lo, -hi)


@pytest.mark.parametrize(
    ("grid", "bits"),
    [(grid, bits) for grid in ("endpoint", "midtread", "twos_complement", "midrise") for bits in (2, 3)]
    + [("endpoint", 1), ("midrise", 1)],
)
def test_mse_of_short_rows_is_near_the_least_of_all_ranges(grid: str, bits: int) -> None:
    x = sample(60, 16)

    def errors(c: torch.Tensor) -> torch.Tensor:
        levels = grids.levels(grids.affine(-c, c, bits, grid)).double()
        return (x.double()[:, :, None] - levels[:, None]).abs().amin(2).square().sum(1)

    largest = x.abs().amax(1)
    least = torch.stack([errors(largest * i / 500) for i in range(1, 1501)]).amin(0)
    excess = errors(ranges.mse(x, bits, grid)[1]) / least
    assert excess.mean() < 1.02
    assert excess.max() < 1.6


def test_mse_keeps_a_row_whose_largest_value_is_the_top_level() -> None:
    x = torch.tensor([[1.5, 1.0, 0.5, 0.0]])
    _, hi = ranges.mse(x, 3, "twos_complement")
    torch.testing.assert_close(hi, torch.tensor([2.0]), rtol=0.01, atol=0)
    x = torch.tensor([[1.75, 0.75, -0.25, -1.25]])
    _, hi = ranges.mse(x, 3, "midrise")
    torch.testing.assert_close(hi, torch.tensor([2.0]), rtol=0.01, atol=0)


def test_mse_does_not_depend_on_how_rows_are_blocked(monkeypatch: pytest.MonkeyPatch) -> None:
    x = sample(5, 1000)
    expected = ranges.mse(x, 4, "endpoint")[1]
    for block in (64, 1500, 3000, 1 << 20):
        monkeypatch.setattr(ranges, "_BLOCK", block)
        assert torch.equal(ranges.mse(x, 4, "endpoint")[1], expected)


def test_mse_unsigned_ignores_the_negative_part_only_in_the_range() -> None:
    x = torch.cat([torch.linspace(0, 1, 1001), -torch.linspace(0, 1, 1001)])[None]
    lo, hi = ranges.mse(x, 4, "endpoint", signed=False)
    assert lo.item() == 0
    assert 0.9 <= hi.item() <= 1


@pytest.mark.parametrize(
    ("distribution", "published"),
    [
        ("gaussian", {2: 1.71063519, 3: 2.15159277, 4: 2.55913646}),
        ("laplace", {2: 2.83068299, 3: 3.89722946, 4: 5.02864014}),
    ],
)
def test_aciq_ratio_equals_the_published_values(distribution: str, published: dict[int, float]) -> None:
    for bits, value in published.items():
        assert ranges.aciq_ratio(bits, distribution) == pytest.approx(value, rel=1e-6)


@pytest.mark.parametrize("bits", [1, 2, 5, 8])
@pytest.mark.parametrize("distribution", ["gaussian", "laplace"])
def test_aciq_ratio_minimises_the_integrated_error(bits: int, distribution: str) -> None:
    law = stats.norm if distribution == "gaussian" else stats.laplace

    def error(c: float) -> float:
        clipped, _ = integrate.quad(lambda v: (v - c) ** 2 * law.pdf(v), c, c + 40, epsabs=1e-14)
        return 2 * clipped + c**2 / (3 * 4**bits)

    best = optimize.minimize_scalar(error, bounds=(0.1, 20), method="bounded", options={"xatol": 1e-6})
    assert ranges.aciq_ratio(bits, distribution) == pytest.approx(best.x, rel=1e-3)


def test_aciq_ratio_grows_up_to_16_bits() -> None:
    for distribution in ("gaussian", "laplace"):
        series = [ranges.aciq_ratio(bits, distribution) for bits in range(1, 17)]
        assert all(b > a for a, b in itertools.pairwise(series))
    # e^-c = c / (3 * 4^16) solved by scipy's Lambert W
    assert ranges.aciq_ratio(16, "laplace") == pytest.approx(lambertw(3 * 4**16).real, rel=1e-12)


def test_aciq_scales_with_the_moments() -> None:
    x = sample(2, 4000)
    gaussian = ranges.aciq(x, 4, "endpoint")[1].double()
    torch.testing.assert_close(gaussian, 2.55913646 * x.double().square().mean(1).sqrt(), rtol=1e-5, atol=0)
    laplace = ranges.aciq(x, 3, "endpoint", distribution="laplace")[1].double()
    torch.testing.assert_close(laplace, 3.89722946 * x.double().abs().mean(1), rtol=1e-5, atol=0)


def test_aciq_unsigned_is_near_the_mse_optimum_of_a_cut_gaussian() -> None:
    x = sample(1, 200_000).div_(0.01)
    lo, hi = ranges.aciq(x, 4, "endpoint", signed=False)
    assert lo.item() == 0
    assert hi.item() == pytest.approx(ranges.aciq_ratio(5), rel=0.01)
    assert hi.item() == pytest.approx(ranges.mse(x, 4, "endpoint", signed=False)[1].item(), rel=0.05)


RULES = [ranges.minmax, ranges.percentile, ranges.ksigma, ranges.mse, ranges.aciq]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("signed", [True, False])
def test_degenerate_rows_get_a_usable_range(rule, signed: bool) -> None:
    x = torch.tensor([[0.0, 0.0, 0.0], [0.7, 0.7, 0.7], [-0.7, -0.7, -0.7], [1e-42, 0.0, 0.0], [3e38, -3e38, 1e38]])
    lo, hi = rule(x, 4, "endpoint", signed=signed)
    grid = grids.affine(lo, hi, 4, "endpoint")
    assert (grid.step > 0).all()
    q = grids.fake_quantize(x, grid, axis=0)
    assert torch.isfinite(q).all()
    assert q[0].abs().max() <= 2.0**-64
    if signed or rule is not ranges.mse:
        assert q[1, 0].item() == pytest.approx(0.7, rel=1.0)


@pytest.mark.parametrize("rule", [ranges.minmax, ranges.percentile, ranges.mse])
def test_constant_rows_are_kept_exactly(rule) -> None:
    x = torch.tensor([[0.7, 0.7], [-0.7, -0.7]])
    lo, hi = rule(x, 2, "endpoint")
    torch.testing.assert_close(grids.fake_quantize(x, grids.affine(lo, hi, 2, "endpoint"), axis=0), x)


@pytest.mark.parametrize("rule", RULES)
def test_rows_are_independent(rule) -> None:
    x = sample(4, 300)
    together = rule(x, 3, "endpoint")
    for i in range(4):
        alone = rule(x[i : i + 1], 3, "endpoint")
        torch.testing.assert_close(alone[1][0], together[1][i], rtol=1e-6, atol=0)


def test_fixed_and_bad_settings() -> None:
    lo, hi = ranges.fixed(torch.zeros(3, 2), 2, "endpoint", lo=-1, hi=2)
    assert (lo.tolist(), hi.tolist()) == ([-1] * 3, [2] * 3)
    x = sample()
    with pytest.raises(SpecError, match="symmetric range"):
        ranges.fixed(x, 2, "midrise", lo=0, hi=1)
    for percentile in (0, 100.5, math.nan):
        with pytest.raises(SpecError, match="percentile must lie in"):
            ranges.percentile(x, 2, "endpoint", percentile=percentile)
    with pytest.raises(SpecError, match="k must be a positive number"):
        ranges.ksigma(x, 2, "endpoint", k=0)
    with pytest.raises(SpecError, match="distribution must be"):
        ranges.aciq(x, 2, "endpoint", distribution="normal")  # type: ignore[arg-type]


@pytest.mark.parametrize("grid", ["endpoint", "midtread", "twos_complement", "midrise"])
@pytest.mark.parametrize("bits", [2, 3, 8])
def test_minmax_clips_nothing(grid: str, bits: int) -> None:
    # clipping is an error of more than half a step
    for x in (torch.tensor([[-0.25, 1.0]]), torch.tensor([[-1.0, 0.25]]), torch.tensor([[0.1, 0.7, 1.0]])):
        parameters = grids.affine(*ranges.minmax(x, bits, grid), bits, grid)
        error = (grids.fake_quantize(x, parameters, 0) - x).abs()
        assert (error <= parameters.step / 2 * (1 + 1e-5)).all()
    assert ranges.minmax(torch.tensor([[-1.0, 0.25]]), 8, "twos_complement")[1].item() == 1.0


@pytest.mark.parametrize("rule", [ranges.minmax, ranges.percentile, ranges.ksigma, ranges.mse, ranges.aciq])
def test_a_mistyped_grid_is_refused(rule: Any) -> None:
    with pytest.raises(SpecError, match=r"grid must be one of endpoint, .*, got 'end point'"):
        rule(torch.ones(1, 4), 4, "end point")
