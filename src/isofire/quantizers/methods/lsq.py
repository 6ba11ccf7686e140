"""`lsq`: a step that is learned with the weights."""

from __future__ import annotations

from typing import Literal

from isofire.quantizers.base import Granularity
from isofire.quantizers.lsq import LSQ
from isofire.quantizers.registry import register_weights
from isofire.quantizers.setting import WeightSetting


@register_weights
class LSQWeights(WeightSetting, frozen=True, kw_only=True, tag="lsq"):
    """Learned step size; see `isofire.quantizers.LSQ`.

    `init`: the step before training has the least squared error ("mse"), or is Esser et al.'s 2 mean|w| / sqrt(Qp)
    ("mean"), which is meant for training only.
    """

    bits: int
    granularity: Granularity = "channel"
    init: Literal["mse", "mean"] = "mse"

    def build(self, channels: int) -> LSQ:
        return LSQ(self.bits, granularity=self.granularity, channels=self.groups(channels), init=self.init)

    def table_numbers(self, groups: int) -> int:
        return groups
