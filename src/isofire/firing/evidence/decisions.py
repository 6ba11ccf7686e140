"""How the decisions of two networks differ on the same images, with intervals."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from scipy.special import bdtr
from torch import Tensor

from isofire.firing.evidence.interval import Interval
from isofire.firing.evidence.student import check_level


@dataclass(frozen=True, kw_only=True)
class Decisions:
    """Numbers of images.

    Parameters
    ----------
    images
        All.
    lost, won
        Right before and wrong after; wrong before and right after.
    agreeing
        Put in the same class by both.
    """

    images: int
    lost: int
    won: int
    agreeing: int

    @classmethod
    def of(cls, before: Tensor, after: Tensor, labels: Tensor) -> Decisions:
        """From the classes that two networks gave, and the true ones: int64 [N]."""
        right, still = before == labels, after == labels
        return cls(
            images=len(labels),
            lost=int((right & ~still).sum()),
            won=int((~right & still).sum()),
            agreeing=int((before == after).sum()),
        )

    def accuracy_drop(self, level: float = 0.95) -> Interval:
        """Share of images by which accuracy fell: lost less won, from the mid-P intervals of both shares.

        By the method of variance estimates recovery (Zou and Donner 2008), with the correlation that two shares of the
        same images have. Intervals from normal errors miss a drop of few images one time in seven.
        """
        lost, won = (share_interval(number, self.images, level, own=0.5) for number in (self.lost, self.won))
        p, q = lost.estimate, won.estimate
        together = math.sqrt(p * q / ((1 - p) * (1 - q))) if max(p, q) < 1 else 0.0
        below = _wing(p - lost.low, won.high - q, together)
        above = _wing(lost.high - p, q - won.low, together)
        error = math.sqrt(max(p + q - (p - q) ** 2, 0.0) / self.images)
        low, high = max(p - q - below, -1.0), min(p - q + above, 1.0)
        return Interval(estimate=p - q, low=low, high=high, level=level, error=error)

    def agreement(self, level: float = 0.95) -> Interval:
        """Share of images in the same class, see `share_interval`."""
        return share_interval(self.agreeing, self.images, level)

    def to_dict(self) -> dict[str, Any]:
        """Plain values: the numbers, and estimate, low and high of both intervals."""
        intervals = {"accuracy_drop": self.accuracy_drop(), "agreement": self.agreement()}
        ends = {key: {"estimate": x.estimate, "low": x.low, "high": x.high} for key, x in intervals.items()}
        return {"images": self.images, "lost": self.lost, "won": self.won, "agreeing": self.agreeing, **ends}


def share_interval(number: int, of: int, level: float = 0.95, *, own: float = 1.0) -> Interval:
    """A share and its interval by Clopper and Pearson (1934), which holds it at least as often as it says.

    Wilson's and normal intervals hold a share near 0 or 1 less often.

    Parameters
    ----------
    own
        How much the number itself counts among those as far away: 0.5 gives the mid-P interval (Berry and Armitage
        1995), which is shorter and holds the share about as often as it says, not always so often.

    Examples
    --------
    >>> found = share_interval(0, 100)
    >>> found.low, round(found.high, 4)
    (0.0, 0.0362)
    """
    tail, share = (1 - check_level(level)) / 2, number / of

    def fewer(p: float, weight: float) -> float:
        below = float(bdtr(number - 1, of, p)) if number > 0 else 0.0
        return (1 - weight) * below + weight * float(bdtr(number, of, p))

    low = 0.0 if number == 0 else _solve(lambda p: 1 - fewer(p, 1 - own), tail, 0.0, share)
    high = 1.0 if number == of else _solve(lambda p: -fewer(p, own), -tail, share, 1.0)
    return Interval(estimate=share, low=low, high=high, level=level, error=math.sqrt(share * (1 - share) / of))


def _solve(rising: Callable[[float], float], value: float, low: float, high: float) -> float:
    """Where a rising function has a value, by halving."""
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if rising(middle) < value else (low, middle)
    return (low + high) / 2


def _wing(first: float, second: float, together: float) -> float:
    return math.sqrt(first**2 + 2 * together * first * second + second**2)
