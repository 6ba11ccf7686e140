"""How the decisions of two networks differ on the same images, with intervals."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from isofire.firing.evidence.interval import Interval
from isofire.firing.evidence.student import z_value


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
        """Share of images by which accuracy fell: half an image more in each discordant cell.

        Agresti and Min 2005, "Simple improved confidence intervals for comparing matched proportions".
        """
        b, c, total = self.lost + 0.5, self.won + 0.5, self.images + 2
        centre = (b - c) / total
        error = math.sqrt(max(b + c - (b - c) ** 2 / total, 0)) / total
        half = z_value(level) * error
        estimate = (self.lost - self.won) / self.images
        low, high = max(centre - half, -1.0), min(centre + half, 1.0)
        return Interval(estimate=estimate, low=low, high=high, level=level, error=error)

    def agreement(self, level: float = 0.95) -> Interval:
        """Share of images in the same class; Wilson's score interval (Wilson 1927)."""
        n, z = self.images, z_value(level)
        share = self.agreeing / n
        centre = (share + z * z / (2 * n)) / (1 + z * z / n)
        half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + (z / (2 * n)) ** 2)
        error = math.sqrt(share * (1 - share) / n)
        # exact at the ends, where rounding would leave a trace
        low = 0.0 if self.agreeing == 0 else centre - half
        high = 1.0 if self.agreeing == n else centre + half
        return Interval(estimate=share, low=low, high=high, level=level, error=error)

    def to_dict(self) -> dict[str, Any]:
        """Plain values: the numbers, and estimate, low and high of both intervals."""
        intervals = {"accuracy_drop": self.accuracy_drop(), "agreement": self.agreement()}
        ends = {key: {"estimate": x.estimate, "low": x.low, "high": x.high} for key, x in intervals.items()}
        return {"images": self.images, "lost": self.lost, "won": self.won, "agreeing": self.agreeing, **ends}
