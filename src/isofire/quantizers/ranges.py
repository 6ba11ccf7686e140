"""How wide a uniform grid should be: from data `[G, n]` to bounds (lo, hi), each float32 `[G]`.

Every function takes finite rows, the bits and the grid, and treats each row on its own. With `signed=True` the range is
[-c, c]; with `signed=False` it is [0, c], chosen from the positive part of the data. A row that asks for no width at
all (all zero; or no positive value and `signed=False`) gets c = 2^-64, so that it stays practically zero and no step is
0.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor

from isofire.errors import SpecError
from isofire.quantizers import grids
from isofire.quantizers.grids import Grid

Distribution = Literal["gaussian", "laplace"]
SMALLEST = 2.0**-64
_LARGEST = 2.0**126
_FRACTIONS = 100
# Elements worked on at a time by the search: small enough to stay in a core's cache.
_BLOCK = 1 << 16


def fixed(x: Tensor, bits: int, grid: Grid, *, lo: float, hi: float) -> tuple[Tensor, Tensor]:
    """Return the given bounds for every row.

    Raises
    ------
    SpecError
        If they do not suit the grid; see `grids.check_range`.
    """
    # adding 0 turns -0 into 0, which would make the sign of a zero level depend on the value
    shape = (x.shape[0],)
    bounds = x.new_full(shape, lo + 0.0, dtype=torch.float32), x.new_full(shape, hi + 0.0, dtype=torch.float32)
    grids.check_range(*bounds, bits, grid)
    return bounds


def minmax(x: Tensor, bits: int, grid: Grid, *, signed: bool = True) -> tuple[Tensor, Tensor]:
    """Nothing is clipped: c = max|x|, or max x when unsigned.

    The top level of `twos_complement` lies a step below c, so there c is such that it reaches the largest value. (At 1
    bit its top level is 0, which reaches no positive value.)

    >>> minmax(torch.tensor([[-3.0, 1.0]]), 4, "endpoint")
    (tensor([-3.]), tensor([3.]))
    """
    grids.check_grid(grid, bits)
    low, high = x.aminmax(dim=1)
    if grid == "twos_complement" and bits > 1:
        high = high * (2 ** (bits - 1) / (2 ** (bits - 1) - 1))
    return _bounds(torch.maximum(high, -low) if signed else high, signed)


def percentile(
    x: Tensor, bits: int, grid: Grid, *, percentile: float = 99.9, signed: bool = True
) -> tuple[Tensor, Tensor]:
    """Clip the outermost values: c is the given percentile of |x| (of max(x, 0) when unsigned), linearly interpolated.

    A row whose percentile is zero although not all of it is, as in sparse data, takes its maximum instead.
    """
    grids.check_grid(grid, bits)
    check_percentile(percentile)
    y = _magnitude(x, signed)
    position = percentile / 100 * (y.shape[1] - 1)
    below = min(int(position), y.shape[1] - 1)
    c = _smallest(y, below)
    if position > below:
        c = torch.lerp(c, _smallest(y, below + 1), position - below)
    return _bounds(torch.where(c > 0, c, y.amax(1)), signed)


def ksigma(x: Tensor, bits: int, grid: Grid, *, k: float = 3.0, signed: bool = True) -> tuple[Tensor, Tensor]:
    """Cover k standard deviations around the mean: c = |mean| + k sigma, or mean + k sigma when unsigned.

    That is the smallest symmetric range with both mean - k sigma and mean + k sigma in it (Bhalgat et al. 2020,
    arXiv 2004.09576, for its initial weight step, k = 3). sigma is the population's (divisor n). If mean + k sigma is
    not positive, an unsigned range ends at the maximum.
    """
    grids.check_grid(grid, bits)
    check_k(k)
    variance, mean = torch.var_mean(x.float(), dim=1, correction=0)
    c = (mean.abs() if signed else mean) + k * variance.sqrt()
    return _bounds(torch.where(c > 0, c, x.amax(1)), signed)


@torch.no_grad()
def mse(x: Tensor, bits: int, grid: Grid, *, signed: bool = True, power_of_two: bool = False) -> tuple[Tensor, Tensor]:
    """Least mean squared error of this very grid among some c: 1 %, 2 %, ... of the largest value.

    The last candidate is the first whose top level reaches the largest value: 100 % for `endpoint` and `midtread`, more
    for `midrise` and `twos_complement`, whose top level lies below c. With `power_of_two` the error is that of the grid
    with its step rounded, and candidates go on by a factor of sqrt(2), as the step may be rounded down by as much. The
    smaller range wins a tie. A c between two candidates or beyond the last can be better, mostly for short rows. Memory
    is bounded by the data's own plus about a megabyte.
    """
    grids.check_grid(grid, bits)
    y = x.float()
    # where each grid ends beside its largest value is what `_reach` says
    largest = minmax(y, bits, "endpoint", signed=signed)[1]
    reach = _reach(bits, grid) * (2**0.5 if power_of_two else 1.0)
    count = math.ceil(round(_FRACTIONS * reach, 6))
    fractions = torch.arange(1, count + 1, device=y.device, dtype=torch.float32) / _FRACTIONS
    candidates = (fractions[:, None] * largest).clamp_(min=SMALLEST)
    flat = grids.affine(*_bounds(candidates.flatten(), signed), bits, grid, power_of_two=power_of_two, check=False)
    error = _squared_error(y, flat._replace(origin=flat.origin.view_as(candidates), step=flat.step.view_as(candidates)))
    return _bounds(candidates.gather(0, error.argmin(0, keepdim=True)).squeeze(0), signed)


def aciq(
    x: Tensor, bits: int, grid: Grid, *, distribution: Distribution = "gaussian", signed: bool = True
) -> tuple[Tensor, Tensor]:
    """Clip where clipping and rounding errors balance if the data were Gaussian or Laplacian with mean 0.

    c = `aciq_ratio` times the root mean square (gaussian) or the mean magnitude (laplace). Unsigned data are taken as
    one half of such a distribution, which is worth one bit more. The grid is not taken into account.
    """
    grids.check_grid(grid, bits)
    y = _magnitude(x, signed).double()
    if not signed:
        # A half whose other half was cut off: its moments are those of the values that are left.
        kept = (y > 0).sum(1).clamp_(min=1)
        scale = y.square().sum(1).div_(kept).sqrt() if distribution == "gaussian" else y.sum(1).div_(kept)
    else:
        scale = y.square().mean(1).sqrt() if distribution == "gaussian" else y.mean(1)
    return _bounds((aciq_ratio(bits if signed else bits + 1, distribution) * scale).float(), signed)


@lru_cache
def aciq_ratio(bits: int, distribution: Distribution = "gaussian") -> float:
    """Return the best clip in units of sigma (gaussian) or of the mean magnitude (laplace).

    It solves 4 E[(X - c)+] = 2 c / (3 * 4^bits), the zero of the derivative of clipping error plus the uniform noise
    c^2 / (3 * 4^bits) of 2^bits cells (Banner et al. 2019, arXiv 1810.05723, eqs. 4-6), by bisection.

    >>> round(aciq_ratio(2), 4), round(aciq_ratio(4, "laplace"), 4)
    (1.7106, 5.0286)

    Raises
    ------
    SpecError
        If the distribution is unknown.
    """
    check_distribution(distribution)
    low, high = 0.0, 64.0
    while (middle := (low + high) / 2) not in (low, high):
        if 4 * _excess(middle, distribution) > 2 * middle / (3 * 4.0**bits):
            low = middle
        else:
            high = middle
    return middle


def check_percentile(percentile: float) -> None:
    """Raise SpecError unless 0 < percentile <= 100."""
    if not 0 < percentile <= 100:
        raise SpecError(f"percentile must lie in (0, 100], got {percentile!r}; 99.9 clips one value in a thousand")


def check_k(k: float) -> None:
    """Raise SpecError unless k is positive and finite."""
    if not 0 < k < math.inf:
        raise SpecError(f"k must be a positive number of standard deviations, got {k!r}; 3 is usual")


def check_distribution(distribution: str) -> None:
    """Raise SpecError for a distribution that has no solution here."""
    if distribution not in ("gaussian", "laplace"):
        raise SpecError(f"distribution must be 'gaussian' or 'laplace', got {distribution!r}")


def _excess(c: float, distribution: Distribution) -> float:
    """E[(X - c)+] of the standard distribution."""
    if distribution == "laplace":
        return math.exp(-c) / 2
    return math.exp(-c * c / 2) / math.sqrt(2 * math.pi) - c * math.erfc(c / math.sqrt(2)) / 2


def _reach(bits: int, grid: Grid) -> float:
    """The c whose top level is 1."""
    half = 2 ** (bits - 1)
    if grid == "midrise":
        return half / (half - 0.5)
    # of one bit in two's complement the top level is 0, wherever c lies
    return half / (half - 1) if grid == "twos_complement" and bits > 1 else 1.0


def _magnitude(x: Tensor, signed: bool) -> Tensor:
    return x.float().abs() if signed else x.float().clamp(min=0)


def _smallest(y: Tensor, rank: int) -> Tensor:
    """The value of each row that has `rank` values below it."""
    # Selection is faster, but elsewhere than on a CPU it counts as non-deterministic and is refused when that matters.
    return y.kthvalue(rank + 1, dim=1).values if y.device.type == "cpu" else y.sort(dim=1).values[:, rank]


def _bounds(c: Tensor, signed: bool) -> tuple[Tensor, Tensor]:
    c = c.float().clamp(SMALLEST, _LARGEST)
    return (-c if signed else torch.zeros_like(c)), c


def _squared_error(x: Tensor, candidates: grids.Affine) -> Tensor:
    """Sum of squared errors, `[F, G]` float64, of rows `[G, n]` under F grids a row (`[F, G]` parameters)."""
    count, groups = candidates.step.shape
    width = max(1, min(x.shape[1], _BLOCK))
    height = max(1, min(groups, _BLOCK // width))
    depth = max(1, _BLOCK // (width * height))
    error = x.new_zeros((count, groups), dtype=torch.float64)
    for g in range(0, groups, height):
        for block in x[g : g + height].split(width, dim=1):
            for f in range(0, count, depth):
                cell = slice(f, f + depth), slice(g, g + height)
                origin, step = candidates.origin[cell].unsqueeze(-1), candidates.step[cell].unsqueeze(-1)
                k = (block - origin).div_(step).clamp_(candidates.k_min, candidates.k_max).round_()
                k.mul_(step).add_(origin).sub_(block)
                error[cell] += k.square_().sum(-1).double()
    return error
