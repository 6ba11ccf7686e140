"""A membrane method in one file: levels that lie closer together near rest, +-top (i / n)^2."""

from __future__ import annotations

from isofire.quantizers import Levels, MembraneSetting
from isofire.quantizers.base import Granularity
from isofire.quantizers.setting import Placement


class SquareMembrane(MembraneSetting, frozen=True, kw_only=True, tag="squares"):
    """2n + 1 levels up to `top`, a zero among them, in `bits` bits."""

    bits: int
    top: float = 1.0
    placement: Placement = "post_reset"
    granularity: Granularity = "tensor"

    @property
    def is_estimated(self) -> bool:
        return False

    def build(self, channels: int) -> Levels:
        n = max(1, 2 ** (self.bits - 1) - 1)
        positive = [self.top * (i / n) ** 2 for i in range(1, n + 1)]
        return Levels([*(-level for level in reversed(positive)), 0.0, *positive], channel_axis=1)
