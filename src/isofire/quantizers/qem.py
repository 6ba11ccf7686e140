"""The basis of LQ-Nets for codes in {-1, +1}^K and how it is fitted (Zhang et al. 2018, arXiv 1807.10029, section 3.2).

A basis v in R^K has the 2^K levels v . e, e in {-1, +1}^K. Changing the sign or the order of its entries changes no
level, so a basis is kept canonical: entries >= 0, ascending. All functions work on `G` bases at once.
"""

from __future__ import annotations

import torch
from torch import Tensor

from isofire.quantizers.bins import SortedRows
from isofire.quantizers.ranges import SMALLEST, mse

# Median of |x| for a standard normal x: where the paper puts the centre of its first levels.
_MEDIAN = 0.6745
# Above this condition number of B^T B, the codes no longer determine the basis.
_SINGULAR = 1e6
_CONVERGED = 1e-7


def code_table(bits: int, like: Tensor) -> Tensor:
    """Return all codes, `[2^K, K]` of -1 and +1 in float64: bit j of the row number is entry j."""
    number = torch.arange(2**bits, device=like.device).unsqueeze(1)
    return ((number >> torch.arange(bits, device=like.device)) & 1).double().mul_(2).sub_(1)


def sorted_levels(basis: Tensor) -> tuple[Tensor, Tensor]:
    """Return the levels of `[G, K]` bases, `[G, 2^K]` ascending, and the row of `code_table` that each comes from.

    >>> sorted_levels(torch.tensor([[1.0, 2.0]]))[0]
    tensor([[-3., -1.,  1.,  3.]])
    """
    levels = basis.new_zeros((basis.shape[0], 1))
    # Entry by entry instead of as a matrix product, whose rounding depends on the number of rows.
    for entry in basis.split(1, dim=1):
        levels = torch.cat([levels - entry, levels + entry], 1)
    levels, order = levels.sort(dim=1, stable=True)
    return levels, order


def midpoints(levels: Tensor) -> Tensor:
    """Return the thresholds between ascending levels, `[G, L-1]`."""
    return (levels[:, :-1] + levels[:, 1:]) / 2


def canonical(basis: Tensor) -> Tensor:
    """Return the basis with the same levels whose entries are >= 0 and ascending."""
    return basis.abs().sort(dim=1).values


def solve(basis: Tensor, counts: Tensor, sums: Tensor, order: Tensor, ridge: float) -> tuple[Tensor, Tensor]:
    """Fit the basis to its values' codes: v' = (B^T B + eps I)^-1 (B^T x + eps v), canonical.

    B^T B = E^T diag(counts) E and B^T x = E^T sums, with E the codes of the ascending levels.

    Parameters
    ----------
    basis
        Current bases v, `[G, K]` float64.
    counts, sums
        Number and sum of the values at each ascending level, `[G, 2^K]` float64.
    order
        Codes of the ascending levels, from `sorted_levels`.
    ridge
        eps, absolute.

    Returns
    -------
    basis
        v', `[G, K]`. Not meaningful where singular.
    singular
        `[G]` bool: the 1-norm condition number of B^T B + eps I exceeds 1e6, or it has no Cholesky factor.
    """
    bits = basis.shape[1]
    codes = code_table(bits, basis)[order]
    weighted = codes.mT * counts.unsqueeze(1)
    identity = torch.eye(bits, dtype=basis.dtype, device=basis.device).expand(basis.shape[0], -1, -1)
    gram = weighted @ codes + ridge * identity
    target = (codes.mT @ sums.unsqueeze(2)) + ridge * basis.unsqueeze(2)
    factor, failed = torch.linalg.cholesky_ex(gram)
    solution = torch.cholesky_solve(torch.cat([identity, target], 2), factor)
    inverse, fitted = solution[..., :bits], solution[..., bits]
    condition = gram.abs().sum(2).amax(1) * inverse.abs().sum(2).amax(1)
    return canonical(fitted), (failed > 0) | ~(condition <= _SINGULAR)


def paper_start(bits: int, sigma: Tensor) -> Tensor:
    """Return the official initial basis, v_j = 2^j * 0.6745 sigma / 2^(K-1), `[G, K]`, for sigma `[G]`."""
    return _doubling(bits, sigma.double() * (_MEDIAN / 2 ** (bits - 1)))


def uniform_start(bits: int, rows: Tensor) -> Tensor:
    """Return the basis `[G, K]` of each row's best uniform mid-rise grid among 100, by squared error."""
    _, hi = mse(rows, bits, "midrise")
    return _doubling(bits, hi.double() / 2**bits)


def spanning_start(bits: int, largest: Tensor) -> Tensor:
    """Return the uniform basis whose outermost levels are +-`largest` (`[G]`)."""
    return _doubling(bits, largest.double().clamp(min=SMALLEST) / (2**bits - 1))


def fit(rows: SortedRows, starts: list[Tensor], *, ridge: float, iterations: int) -> tuple[Tensor, Tensor]:
    """Alternate assignment and least squares from each start until nothing moves; keep each row's best basis.

    Rows whose problem is singular (see `solve`), as when all their values are equal, go to `spanning_start`.
    The first start itself is a candidate too, so no row ends above its error there.

    Parameters
    ----------
    rows
        The data, `G` rows.
    starts
        Bases `[G, K]` float64.
    ridge
        See `solve`.
    iterations
        Most alternations for each start. 0 returns the best start.

    Returns
    -------
    basis
        `[G, K]` float64, canonical.
    error
        Mean squared error of each row, `[G]` float64.
    """
    best = canonical(starts[0])
    error = mean_squared_error(rows, best)
    for start in starts:
        other = converge(rows, start, ridge=ridge, iterations=iterations)
        other_error = mean_squared_error(rows, other)
        best = torch.where((other_error < error).unsqueeze(1), other, best)
        error = torch.minimum(error, other_error)
    return best, error


def converge(rows: SortedRows, basis: Tensor, *, ridge: float, iterations: int) -> Tensor:
    """Alternate assignment and least squares from one start; see `fit`."""
    result = canonical(basis.double())
    active = torch.arange(result.shape[0], device=result.device)
    for _ in range(iterations):
        now = result[active]
        levels, order = sorted_levels(now)
        fitted, singular = solve(now, *rows.cells(midpoints(levels)), order, ridge)
        fitted = torch.where(singular.unsqueeze(1), spanning_start(now.shape[1], rows.largest), fitted)
        result[active] = fitted
        moved = (fitted - now).abs().amax(1) > _CONVERGED * fitted.amax(1)
        remaining = int(moved.sum())
        if not remaining:
            break
        if remaining <= active.numel() // 2:
            active, rows = active[moved], rows.select(moved)
    return result


def mean_squared_error(rows: SortedRows, basis: Tensor) -> Tensor:
    """Return each row's mean squared error at the levels of `basis`, `[G]` float64."""
    levels, _ = sorted_levels(basis)
    counts, sums = rows.cells(midpoints(levels))
    return (rows.energy + (levels * (levels * counts - 2 * sums)).sum(1) / rows.n).clamp_(min=0)


def further_starts(bits: int, energy: Tensor, restarts: int, seed: int) -> list[Tensor]:
    """Return `restarts` starts for rows of mean square `energy` (`[G]`), the same for a given seed on every device.

    The first grows by 1.6 from entry to entry, which leads a Gaussian to a better optimum than doubling does; the
    others have random entries. All rows get the same, scaled to sum v^2 = energy.
    """
    rms = energy.double().sqrt().clamp(min=SMALLEST).unsqueeze(1)
    generator = torch.Generator().manual_seed(seed)
    starts = []
    for i in range(restarts):
        direction = (
            torch.randn(bits, generator=generator, dtype=torch.float64)
            if i
            else 1.6 ** torch.arange(bits, dtype=torch.float64)
        )
        starts.append(rms * (direction / direction.norm()).to(rms.device))
    return starts


def _doubling(bits: int, first: Tensor) -> Tensor:
    return first.unsqueeze(1) * 2.0 ** torch.arange(bits, dtype=torch.float64, device=first.device)
