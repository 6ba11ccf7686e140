"""Rounding that compensates: what one weight loses by rounding, the weights that share its inputs make good.

A layer's output is W X. Rounding W to Q costs |(W - Q) X|^2 = sum over rows of (w - q) H (w - q)^T with H = X X^T, not
|W - Q|^2. GPTQ (Frantar et al. 2023, arXiv 2210.17323, algorithm 1) goes through the columns, rounds one and spreads
its error over those still to come by the inverse of H. Coordinate descent then looks at each weight again, with all
others given, until none moves (at most `sweeps` times); it can only lower the cost. It starts from GPTQ's rounding
and from the nearest, and each row keeps the better: no row is worse than rounded to nearest.
"""

from __future__ import annotations

import torch
from torch import Tensor

from isofire.errors import SpecError
from isofire.quantizers.table import Table


class TooFewPatchesError(SpecError):
    """Fewer input patches than weights of an output: their second moments alone have no inverse.

    Attributes
    ----------
    got, needed
        Patches.
    """

    def __init__(self, got: int, needed: int, damping: float) -> None:
        super().__init__(
            f"the second moments of a layer's inputs have an inverse from as many input patches on as an output has "
            f"weights, got {got} for {needed}; damping = {damping:g} would invent what the other directions cost, "
            "however large it is"
        )
        self.got, self.needed = got, needed


@torch.no_grad()
def round_compensated(
    weight: Tensor, moment: Tensor, table: Table, *, damping: float = 0.01, sweeps: int = 8
) -> Tensor:
    """Levels for every weight, chosen together row by row.

    Parameters
    ----------
    weight
        `[O, K]`: outputs by inputs.
    moment
        `[K, K]` float64: sum over inputs of x x^T, as the layer meets them.
    table
        Levels `[O or 1, L]` and edges; a weight takes the level of the bin that its compensated value falls into.
    damping
        This share of the mean diagonal of `moment` is added to its diagonal, so that it has an inverse.
    sweeps
        Passes of coordinate descent, at most; 0 for GPTQ alone.

    Returns
    -------
    Tensor
        `[O, K]` float32, on the table's levels.

    Raises
    ------
    SpecError
        If `damping` is not positive or `moment` has no inverse at it.

    Examples
    --------
    >>> table = Table(torch.tensor([[0.5]]), torch.tensor([[0.0, 1.0]]))
    >>> same = torch.ones(2, 2, dtype=torch.float64)  # two inputs that always agree
    >>> round_compensated(torch.tensor([[0.4, 0.4]]), same, table)  # nearest rounding would give [0, 0]
    tensor([[0., 1.]])
    """
    if not damping > 0:
        raise SpecError(f"damping must be positive, got {damping}; 0.01 is usual")
    matrix = _damped(moment, damping)
    # the inputs that matter most first, while there is most left to make it good
    order = matrix.diagonal().argsort(descending=True, stable=True)
    back = order.argsort()
    sorted_matrix = matrix[order][:, order]
    values = weight.double()[:, order]
    nearest = torch.stack([_level(column, table) for column in values.mT], dim=1)
    starts = [_sweep(values, _spread(sorted_matrix, damping), table), nearest]
    found = [_descend(values, start, sorted_matrix, table, sweeps) for start in starts]
    first, second = (weighted_error(values, rounded, sorted_matrix) for rounded in found)
    return torch.where((first <= second).unsqueeze(1), *found)[:, back].float()


# of finer and wider ones the step above 1 matters most: compensated weights want a somewhat wider grid
FACTORS = (1.0, 0.8, 0.9, 1.1, 1.2, 1.35)
_NUMBERS = 1 << 22
"""Weights rounded at a time, over factors."""


@torch.no_grad()
def round_up_to_a_factor(
    weight: Tensor, moment: Tensor, table: Table, *, damping: float = 0.01, sweeps: int = 8
) -> Tensor:
    """`round_compensated` where each row may come out multiplied by a factor of its own, which what follows takes back.

    Each row is rounded on the grid made wider and narrower by `FACTORS`, and keeps the rounding q whose direction is
    nearest: the least of min over a of (w - a q) H (w - a q)^T = w H w^T - (q H w^T)^2 / q H q^T.

    Parameters
    ----------
    moment
        `[K, K]` float64: sum over inputs of (x - mean) (x - mean)^T where an offset is taken back too.

    Returns
    -------
    Tensor
        `[O, K]` float32, on the table's levels.
    """
    best = torch.full((len(weight),), -torch.inf, dtype=torch.float64, device=weight.device)
    kept = torch.empty_like(weight, dtype=torch.float32)
    # rows do not see each other, and a pass over the columns costs hardly more for many rows than for few
    together = max(1, _NUMBERS // max(1, weight.numel()))
    for start in range(0, len(FACTORS), together):
        some = FACTORS[start : start + together]
        rows = Table(*(part.repeat(len(some), 1) if len(part) > 1 else part for part in table))
        scaled = torch.cat([weight / factor for factor in some])
        for rounded in round_compensated(scaled, moment, rows, damping=damping, sweeps=sweeps).split(len(weight)):
            explained = _explained(weight, rounded, moment)
            better = explained > best
            best = torch.where(better, explained, best)
            kept = torch.where(better.unsqueeze(1), rounded, kept)
    return kept


def _explained(weight: Tensor, rounded: Tensor, moment: Tensor) -> Tensor:
    """(q H w^T)^2 / q H q^T of each row, `[O]`; 0 of a row that is rounded to 0, negative where q points away."""
    spread = rounded.double() @ moment
    along = (spread * weight.double()).sum(1)
    size = (spread * rounded.double()).sum(1)
    return torch.where(size > 0, along * along.abs() / size.clamp(min=torch.finfo(size.dtype).tiny), 0.0)


def weighted_error(weight: Tensor, rounded: Tensor, moment: Tensor) -> Tensor:
    """What rounding costs each row, `[O]` float64: (w - q) H (w - q)^T."""
    error = weight.double() - rounded.double()
    return ((error @ moment) * error).sum(1)


def _damped(moment: Tensor, damping: float) -> Tensor:
    mean = float(moment.diagonal().mean())
    # inputs that are never seen leave the choice free: the nearest level
    return moment + torch.eye(len(moment), dtype=moment.dtype, device=moment.device) * (damping * mean or 1.0)


def _spread(matrix: Tensor, damping: float) -> Tensor:
    """Upper Cholesky factor of the inverse: row i, over its diagonal, says how column i's error goes to later ones."""
    try:
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(matrix))
        return torch.linalg.cholesky(inverse, upper=True)
    except RuntimeError as error:
        raise SpecError(
            f"the second moment of a layer's inputs has no inverse at damping {damping}; raise damping, or calibrate "
            "on more images"
        ) from error


def _sweep(values: Tensor, spread: Tensor, table: Table) -> Tensor:
    left, rounded = values.clone(), torch.empty_like(values)
    for column in range(left.shape[1]):
        rounded[:, column] = _level(left[:, column], table)
        error = (left[:, column] - rounded[:, column]) / spread[column, column]
        left[:, column + 1 :] -= error.unsqueeze(1) * spread[column, column + 1 :]
    return rounded


def _descend(values: Tensor, rounded: Tensor, matrix: Tensor, table: Table, sweeps: int) -> Tensor:
    gradient = (values - rounded) @ matrix
    for _ in range(sweeps):
        moved = False
        for column in range(values.shape[1]):
            curvature = matrix[column, column]
            wanted = rounded[:, column] + gradient[:, column] / curvature
            # the nearest level, which edges that are no midpoints need not give
            levels = table.levels.double().expand(len(wanted), -1)
            nearest = levels.gather(1, (levels - wanted.unsqueeze(1)).abs().argmin(1, keepdim=True)).squeeze(1)
            step = nearest - rounded[:, column]
            better = (step != 0) & ((wanted - nearest).abs() < (wanted - rounded[:, column]).abs())
            # of many rows, few move
            rows = better.nonzero().squeeze(1)
            if len(rows):
                gradient[rows] -= step[rows].unsqueeze(1) * matrix[column]
                rounded[rows, column] += step[rows]
                moved = True
        if not moved:
            break
    return rounded


def _level(column: Tensor, table: Table) -> Tensor:
    """The level of each row's value, float64 `[O]`."""
    axis = 0 if len(table.levels) > 1 else None
    return table.quantize(column.float().unsqueeze(1), axis).squeeze(1).double()
