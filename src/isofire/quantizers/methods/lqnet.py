"""`lqnet`: levels spanned by a learned basis."""

from __future__ import annotations

from typing import ClassVar, Literal

from isofire.quantizers.base import Granularity
from isofire.quantizers.lqnet import LQNet
from isofire.quantizers.registry import register_weights
from isofire.quantizers.setting import Span, WeightSetting


@register_weights
class LQNetWeights(WeightSetting, frozen=True, kw_only=True, tag="lqnet"):
    """Learned basis of LQ-Nets; see `isofire.quantizers.LQNet`.

    `clip` clamps the weights first (the paper's range). `init` "data" fits the basis to the weights, for trained
    networks; "official" is LQ-Nets' own start, for training from scratch. `iterations` of fitting: by default 300 for
    "data", none for "official".
    """

    max_bits: ClassVar[int] = 8

    bits: int
    granularity: Granularity = "channel"
    clip: Span | None = None
    restarts: int = 0
    init: Literal["data", "official"] = "data"
    iterations: int | None = None

    def build(self, channels: int) -> LQNet:
        default = 0 if self.init == "official" else 300
        return LQNet(
            self.bits,
            granularity=self.granularity,
            channels=self.groups(channels),
            clip=self.clip,
            restarts=self.restarts,
            init=self.init,
            iterations=default if self.iterations is None else self.iterations,
        )

    def table_numbers(self, groups: int) -> int:
        # a basis vector
        return groups * self.bits
