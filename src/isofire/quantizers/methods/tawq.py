"""`tawq`: ternary weights that change with the step."""

from __future__ import annotations

from typing import ClassVar, Literal

from isofire.quantizers.registry import register_weights
from isofire.quantizers.setting import WeightSetting
from isofire.quantizers.tawq import TaWQ


@register_weights
class TaWQWeights(WeightSetting, frozen=True, kw_only=True, tag="tawq"):
    """Ternary weights that change with the step; see `isofire.quantizers.TaWQ`. `steps` must equal the model's T."""

    own_range: ClassVar[str] = "learned"

    steps: int = 4
    scale: Literal["inverse_density", "mse"] = "inverse_density"

    def build(self, channels: int) -> TaWQ:
        return TaWQ(self.steps, scale=self.scale, channels=channels)

    @property
    def time_steps(self) -> int:
        return self.steps

    def table_numbers(self, groups: int) -> int:
        # a scale for each channel at each step
        return groups * self.steps

    def _summary(self) -> str:
        return f"tawq ternary, {self.steps} steps"
