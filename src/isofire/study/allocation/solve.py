"""One option for each layer: an integer program, solved exactly by HiGHS (scipy.optimize.milp)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp

from isofire.errors import SpecError
from isofire.study.allocation.budget import Budget, shown, shown_least, title
from isofire.study.allocation.measure import Option

_ROUNDING = 1e-12


class Limit(NamedTuple):
    """`start` plus the sum of the chosen options' `weights` may be at most `most`."""

    weights: np.ndarray
    most: float
    start: float = 0.0

    def total(self, taken: np.ndarray) -> float:
        """What a choice comes to."""
        return self.start + float(self.weights[taken].sum())

    def exceeded_by(self, total: float) -> bool:
        """Whether it is, by more than sums of floats are off: .1 + .2 keeps to .3."""
        largest = max(abs(self.most), abs(self.start), float(np.abs(self.weights).max()))
        return total - self.most > _ROUNDING * largest


def limits_of(options: Sequence[Option], budget: Budget, bases: Mapping[str, float] | None = None) -> dict[str, Limit]:
    """A budget as limits on these options.

    Parameters
    ----------
    bases
        "synops" and "energy_uj" of the network before anything is quantized, which the options' changes are added to.
    """
    sizes = np.array([option.bytes for option in options])
    kinds = {
        "weight_bytes": sizes * [option.target == "weights" for option in options],
        "state_bytes": sizes * [option.target == "membrane" for option in options],
        "total_bytes": sizes,
        "synops": np.array([option.synops for option in options]),
        "energy_uj": np.array([option.energy_uj for option in options]),
    }
    start = bases or {}
    return {name: Limit(kinds[name], most, start.get(name, 0.0)) for name, most in budget.given().items()}


def solve(options: Sequence[Option], budget: Budget, bases: Mapping[str, float] | None = None) -> list[Option]:
    """One option for each layer, with the least sum of drifts that keeps to the budget; exact.

    Raises
    ------
    SpecError
        If none does; says the least that can be kept to.
    """
    drifts, sizes = (np.array([getattr(option, name) for option in options]) for name in ("drift", "bytes"))
    return least(options, limits_of(options, budget, bases), drifts, sizes)


def least(options: Sequence[Option], limits: Mapping[str, Limit], cost: np.ndarray, second: np.ndarray) -> list[Option]:
    """One option for each layer, with the least sum of `cost` within all limits; exact.

    Of sums that differ by less than a millionth of the largest cost, the one with the lower sum of `second`.

    Raises
    ------
    SpecError
        If none is; says the least that each limit allows, or that only all together are too much.
    """
    layers = list(dict.fromkeys((option.target, option.name) for option in options))
    rows = np.array([[float((option.target, option.name) == layer) for option in options] for layer in layers])
    for name, limit in limits.items():
        lowest = limit.start + sum(float(limit.weights[row > 0].min()) for row in rows)
        if limit.exceeded_by(lowest):
            raise SpecError(
                f"the limit {title(name)} = {shown(name, limit.most)} cannot be met: with these bits the least is "
                f"{shown_least(name, lowest)}; raise it, or give other bits to choose from"
            )
    constraints = [LinearConstraint(rows, 1, 1)]
    constraints += [
        LinearConstraint(limit.weights[np.newaxis], -np.inf, limit.most - limit.start) for limit in limits.values()
    ]
    found = milp(
        _scaled(cost) + 1e-6 * _scaled(second),
        constraints=constraints,
        integrality=np.ones(len(options)),
        bounds=Bounds(0, 1),
        options={"mip_rel_gap": 0.0},
    )
    if found.x is None:
        told = ", ".join(f"{title(name)} = {shown(name, limit.most)}" for name, limit in limits.items())
        raise SpecError(f"each of {told} can be met, but no choice of bits meets all of them; raise one")
    return [option for option, taken in zip(options, found.x, strict=True) if taken > 0.5]


def _scaled(values: np.ndarray) -> np.ndarray:
    return values / (float(np.abs(values).max()) or 1.0)
