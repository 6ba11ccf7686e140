"""Levels spanned by a basis for codes in {0, 1}^K, of either sign: LQ-Nets' form with an exact zero.

A basis v in R^K has the 2^K levels v . e, e in {0, 1}^K: code 0 is zero whatever v is, and negative entries give
levels below it. {-1, +1} codes, as LQ-Nets has for weights, have no zero in general; {0, 1} codes with entries >= 0, as
it has for activations, nothing below zero. Values at code 0 leave no trace in the least squares, so that the many
membranes that rest do not pull the basis towards them. All functions work on `G` bases at once, in float64.
"""

from __future__ import annotations

import torch
from torch import Tensor

from isofire.quantizers.bins import SortedRows
from isofire.quantizers.qem import midpoints

_RIDGE = 1e-3
_CONVERGED = 1e-7
# highest levels of the starts, in units of the distance from rest to threshold
_TOPS = (0.4, 0.6, 0.8, 1.0)


def code_table(bits: int, like: Tensor) -> Tensor:
    """Return all codes, `[2^K, K]` of 0 and 1 in float64: bit j of the row number is entry j."""
    number = torch.arange(2**bits, device=like.device).unsqueeze(1)
    return ((number >> torch.arange(bits, device=like.device)) & 1).double()


def sorted_levels(basis: Tensor) -> tuple[Tensor, Tensor]:
    """Return the levels of `[G, K]` bases, `[G, 2^K]` ascending, and the row of `code_table` that each comes from.

    >>> sorted_levels(torch.tensor([[-0.5, 0.8]]))[0]
    tensor([[-0.5000,  0.0000,  0.3000,  0.8000]])
    """
    levels = basis.new_zeros((basis.shape[0], 1))
    # entry by entry instead of as a matrix product, whose rounding depends on the number of rows
    for entry in basis.split(1, dim=1):
        levels = torch.cat([levels, levels + entry], 1)
    levels, order = levels.sort(dim=1, stable=True)
    return levels, order


def moments(counts: Tensor, sums: Tensor, order: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """Sums of e e^T, `[G, K, K]`, and of e x, `[G, K]`, over values x with codes e.

    Parameters
    ----------
    counts, sums
        Number and sum of the values at each ascending level, `[G, L]` float64; L <= 2^K, the first ones.
    order
        From `sorted_levels`.
    """
    codes = code_table(bits, counts)[order[:, : counts.shape[1]]]
    return (codes.mT * counts.unsqueeze(1)) @ codes, (codes.mT @ sums.unsqueeze(2)).squeeze(2)


def solve(basis: Tensor, gram: Tensor, target: Tensor) -> Tensor:
    """The basis of least squares, v' = (G + eps I)^-1 (r + eps v), `[G, K]`; eps is 1e-3 of G's mean diagonal.

    The ridge leaves v as it is where the codes say nothing of it, as in a silent channel. A basis whose entries would
    all be <= 0, so that no level would lie above the rest, stays as it is too.
    """
    bits = basis.shape[1]
    eps = (gram.diagonal(dim1=1, dim2=2).mean(1) * _RIDGE).clamp(min=torch.finfo(torch.float64).tiny)
    ridge = eps.view(-1, 1, 1) * torch.eye(bits, dtype=basis.dtype, device=basis.device)
    fitted = torch.linalg.solve(gram + ridge, target + eps.unsqueeze(1) * basis)
    kept = ~(fitted.amax(1) > 0) | ~fitted.isfinite().all(1)
    return torch.where(kept.unsqueeze(1), basis, fitted)


def starts(bits: int, reach: float, rows: int) -> list[Tensor]:
    """Even grids `[rows, K]` around zero: more levels above it, more below it, and all above; of four widths each."""
    powers = 2.0 ** torch.arange(bits, dtype=torch.float64)
    top = 2 ** (bits - 1)
    found = []
    for share in _TOPS:
        for signs, highest in _sign_patterns(bits, top):
            found.append((share * reach / highest * powers * signs).expand(rows, -1).clone())
    return found


def _sign_patterns(bits: int, top: int) -> list[tuple[Tensor, int]]:
    ones = torch.ones(bits, dtype=torch.float64)
    patterns = [(ones, 2 * top - 1)]
    if bits > 1:
        last = ones.clone()
        last[-1] = -1.0
        patterns += [(-last, top), (last, top - 1)]
    return patterns


def fit(data: SortedRows, first: list[Tensor], count: int, iterations: int) -> Tensor:
    """Alternate the nearest level and least squares from each start; keep each row's basis of least squared error.

    Parameters
    ----------
    data
        Values relative to the rest.
    first
        Bases to start from.
    count
        How many of the ascending levels are used.
    """
    best, error = first[0], torch.full((len(first[0]),), torch.inf, dtype=torch.float64)
    for start in first:
        basis = start
        for _ in range(iterations):
            levels, order = sorted_levels(basis)
            counts, sums = data.cells(midpoints(levels[:, :count]))
            moved = solve(basis, *moments(counts, sums, order, basis.shape[1]))
            going = bool(((moved - basis).abs().amax(1) > _CONVERGED * moved.abs().amax(1)).any())
            basis = moved
            if not going:
                break
        own = squared_error(data, basis, count)
        better = own < error
        best, error = torch.where(better.unsqueeze(1), basis, best), torch.minimum(own, error)
    return best


def squared_error(data: SortedRows, basis: Tensor, count: int) -> Tensor:
    """Return each row's mean squared error at the first `count` levels of its basis, `[G]`."""
    levels = sorted_levels(basis)[0][:, :count]
    counts, sums = data.cells(midpoints(levels))
    return data.energy + (levels * (levels * counts - 2 * sums)).sum(1) / data.n
