"""Uniform grids as an affine map of integers: value = origin + step * k, k_min <= k <= k_max.

All arithmetic is float32 in one fixed order, `origin + step * round(clamp((x - origin) / step, k_min, k_max))`, with a
true division and no fused multiply-add, so that an integer or C implementation can reproduce every bit. Ties go to the
even k, as in `torch.round` and in IEEE 754's default rounding; what is a tie is told by the float32 quotient, which may
lie beside one: 0 on 8 levels from -1 to 1 is at 3.4999998.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from isofire.errors import DataError, SpecError
from isofire.quantizers.rows import along

Grid = Literal["endpoint", "midtread", "twos_complement", "midrise"]
MAX_BITS = 16
# Finer than this, neighbouring float32 levels start to coincide.
_FINEST = 2.0**-21
_SQRT_HALF = 0.5**0.5


class Affine(NamedTuple):
    """A grid of `k_max - k_min + 1` levels per group.

    Attributes
    ----------
    origin, step
        Float32 `[G]`, in the units of the values; `step > 0`.
    k_min, k_max
        Smallest and largest integer code.
    """

    origin: Tensor
    step: Tensor
    k_min: int
    k_max: int


def check_bits(bits: int) -> int:
    """Return `bits` if it is a whole number in 1..16.

    Raises
    ------
    SpecError
        If it is not.
    """
    if isinstance(bits, bool) or not isinstance(bits, int) or not 1 <= bits <= MAX_BITS:
        raise SpecError(
            f"bits must be a whole number in 1..{MAX_BITS}, got {bits!r}; to keep full precision, do not quantize"
        )
    return bits


def check_grid(grid: Grid, bits: int) -> None:
    """Check that `grid` exists and has at least two levels at `bits`.

    Raises
    ------
    SpecError
        If it does not.
    """
    check_bits(bits)
    if grid not in get_args(Grid):
        raise SpecError(f"grid must be one of {', '.join(get_args(Grid))}, got {grid!r}")
    if grid == "midtread" and bits < 2:
        raise SpecError(
            "grid 'midtread' needs bits >= 2, got 1: its only level would be 0; take 2 bits or grid 'endpoint'"
        )


def check_range(lo: Tensor, hi: Tensor, bits: int, grid: Grid) -> None:
    """Check that `lo` and `hi` (any equal shape) span a usable range for `grid`.

    Raises
    ------
    SpecError
        If a bound is not finite, lo >= hi, the range is too narrow for float32 at its distance from 0, or the grid is
        symmetric and lo != -hi. `twos_complement` also takes its outermost levels, such as [-128, 127] for 8 bits.
    """
    where = f"range [{lo.flatten()[0].item():g}, {hi.flatten()[0].item():g}]"
    if not (torch.isfinite(lo) & torch.isfinite(hi) & (lo < hi)).all():
        raise SpecError(f"a range needs finite bounds with lo < hi in every group, got {where} (first group)")
    if (
        grid != "endpoint"
        and not ((lo == -hi) | (_is_span_of_levels(lo, hi, bits) & (grid == "twos_complement"))).all()
    ):
        ends = ", or its outermost levels, hi = -lo (1 - 2^(1-bits))" if grid == "twos_complement" else ""
        raise SpecError(
            f"grid {grid!r} needs a symmetric range, lo = -hi{ends}, got {where} (first group); for others take "
            "'endpoint'"
        )
    largest = torch.maximum(lo.abs(), hi.abs()).double()
    step = (hi.double() - lo.double()) / (2**bits - 1)
    if (step < largest * _FINEST).any() or (largest > 2.0**126).any() or (largest < 2.0**-90).any():
        raise SpecError(
            f"{where} (first group) cannot hold {2**bits} distinct float32 levels; widen it or take fewer bits"
        )


def affine(lo: Tensor, hi: Tensor, bits: int, grid: Grid, *, power_of_two: bool = False, check: bool = True) -> Affine:
    """Describe one of four grids over [lo, hi].

    With h = 2^(bits-1):

    - `endpoint`: 2^bits levels from lo to hi inclusive, step (hi - lo) / (2^bits - 1). A symmetric range has no zero.
    - `midtread`: the 2h - 1 levels -hi..hi with an exact zero, step hi / (h - 1).
    - `twos_complement`: the 2h levels lo..-lo - step with an exact zero, step -lo / h, k in -h..h-1; hi is -lo or the
    top level, which is the same grid.
    - `midrise`: the 2h levels +-step/2, +-3 step/2, ..., step hi / h, no zero; lo and hi are the outer cells' far
    edges.

    Parameters
    ----------
    lo, hi
        Bounds `[G]`.
    bits
        1..16.
    grid
        Name of the grid.
    power_of_two
        Round the step to the nearest power of two, nearest in log2. A symmetric range stays symmetric, any other keeps
        its lo; `bounds` gives the range that results.
    check
        Validate the bounds first. It waits for the device, so callers that made the bounds themselves skip it.

    Returns
    -------
    Affine
        For `endpoint`, the step is the float32 number whose top level lies closest to hi.

    Raises
    ------
    SpecError
        See `check_grid` and `check_range`.

    Examples
    --------
    >>> levels(affine(torch.tensor([-10.0]), torch.tensor([10.0]), 2, "twos_complement"))
    tensor([[-10.,  -5.,   0.,   5.]])
    """
    check_grid(grid, bits)
    lo, hi = lo.float(), hi.float()
    if check:
        check_range(lo, hi, bits, grid)
    half = 2 ** (bits - 1)
    if grid == "endpoint":
        top = 2**bits - 1
        if not power_of_two:
            return Affine(lo, _endpoint_step(lo, hi, top), 0, top)
        step = _nearest_power_of_two((hi - lo) / top)
        return Affine(torch.where(lo == -hi, step * (-top / 2), lo), step, 0, top)
    step = hi / (half - 1) if grid == "midtread" else -lo / half
    if power_of_two:
        step = _nearest_power_of_two(step)
    if grid == "midtread":
        return Affine(torch.zeros_like(step), step, 1 - half, half - 1)
    return Affine(step / 2 if grid == "midrise" else torch.zeros_like(step), step, -half, half - 1)


def bounds(parameters: Affine, grid: Grid) -> tuple[Tensor, Tensor]:
    """Return the range [lo, hi] (each `[G]`) of a grid: what `affine` takes to make it again."""
    origin, step, k_min, k_max = parameters
    if grid == "endpoint":
        return origin, origin + step * k_max
    hi = step * max(-k_min, k_max)
    return -hi, hi


def _is_span_of_levels(lo: Tensor, hi: Tensor, bits: int) -> Tensor:
    """Whether lo and hi are the lowest and the highest level of two's complement."""
    top = -lo.double() * (1 - 2.0 ** (1 - bits))
    return (hi.double() - top).abs() <= lo.double().abs() * 1e-6


def _endpoint_step(lo: Tensor, hi: Tensor, top: int) -> Tensor:
    exact = ((hi.double() - lo.double()) / top).float()
    # One ulp of the step moves the top level by many: of the neighbours, take the one that lands closest to hi.
    candidates = torch.stack([exact, exact.nextafter(hi.new_tensor(torch.inf)), exact.nextafter(hi.new_zeros(()))])
    miss = ((lo + candidates * top).double() - hi.double()).abs()
    return candidates.gather(0, miss.argmin(0, keepdim=True)).squeeze(0)


def _nearest_power_of_two(step: Tensor) -> Tensor:
    mantissa, _ = torch.frexp(step)
    upper = step / mantissa  # exact: mantissa in [1/2, 1), so this is the power of two just above
    return torch.where(mantissa >= _SQRT_HALF, upper, upper / 2)


def index(x: Tensor, parameters: Affine, axis: int | None = None) -> Tensor:
    """Return the code k of every element as a float32 whole number, `k_min..k_max`; same shape as `x`.

    Parameters
    ----------
    x
        Finite values.
    parameters
        The grid, `[G]`.
    axis
        Axis of `x` that has one parameter per index; None for a single group.
    """
    origin, step = along(parameters.origin, x.ndim, axis), along(parameters.step, x.ndim, axis)
    return (x.float() - origin).div_(step).clamp_(parameters.k_min, parameters.k_max).round_()


def value(k: Tensor, parameters: Affine, axis: int | None = None) -> Tensor:
    """Return `origin + step * k` in float32 for whole numbers `k`; same shape as `k`."""
    origin, step = along(parameters.origin, k.ndim, axis), along(parameters.step, k.ndim, axis)
    return k.float().mul(step).add_(origin)


def fake_quantize(x: Tensor, parameters: Affine, axis: int | None = None) -> Tensor:
    """Return the level nearest to each element in float32, `value(index(x))`; same shape as `x`, no gradient."""
    with torch.no_grad():
        k = index(x, parameters, axis)
        step = along(parameters.step, x.ndim, axis)
        return k.mul_(step).add_(along(parameters.origin, x.ndim, axis))


def codes(x: Tensor, parameters: Affine, axis: int | None = None) -> Tensor:
    """Return the position of each element's level among the ascending levels: int32, 0..L-1, same shape as `x`."""
    return index(x, parameters, axis).sub_(parameters.k_min).to(torch.int32)


def decode(positions: Tensor, parameters: Affine, axis: int | None = None) -> Tensor:
    """Return the values of `codes`, equal bit for bit to `fake_quantize`.

    Raises
    ------
    DataError
        If a position lies outside 0..L-1.
    """
    check_codes(positions, parameters.k_max - parameters.k_min + 1)
    return value(positions + parameters.k_min, parameters, axis)


def levels(parameters: Affine) -> Tensor:
    """Return every level, `[G, L]` float32, ascending."""
    k = torch.arange(parameters.k_min, parameters.k_max + 1, device=parameters.step.device)
    return value(k.expand(parameters.step.numel(), -1), parameters, 0)


def check_codes(positions: Tensor, count: int) -> None:
    """Check that integer `positions` lie in 0..count-1.

    Raises
    ------
    DataError
        If they do not, or are not integers.
    """
    if positions.is_floating_point() or positions.is_complex() or positions.dtype == torch.bool:
        raise DataError(f"codes must be integers, got {positions.dtype}; pass what codes() returned")
    if positions.numel():
        low, high = (int(v) for v in positions.aminmax())
        if low < 0 or high >= count:
            raise DataError(f"codes must lie in 0..{count - 1}, got {low}..{high}; were they made with other bits?")
