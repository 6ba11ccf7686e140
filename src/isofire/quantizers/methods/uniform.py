"""`uniform`: levels on a uniform grid, for weights and membranes."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from isofire.quantizers.base import Granularity
from isofire.quantizers.grids import Grid
from isofire.quantizers.ranges import Distribution
from isofire.quantizers.registry import register_constant, register_membrane, register_weights
from isofire.quantizers.setting import ConstantSetting, MembraneSetting, Placement, Span, WeightSetting
from isofire.quantizers.uniform import Ste, Uniform

WeightRange = Literal["minmax", "percentile", "ksigma", "mse", "aciq"]
MembraneRange = Literal["minmax", "percentile", "ksigma", "mse"]


@register_weights
class UniformWeights(WeightSetting, frozen=True, kw_only=True, tag="uniform"):
    """Uniform grid; see `isofire.quantizers.Uniform`. `range` is fixed [low, high] or estimated from the weights."""

    bits: int
    grid: Grid = "endpoint"
    range: Span | WeightRange = "mse"
    percentile: float = 99.9
    k: float = 3.0
    distribution: Distribution = "gaussian"
    granularity: Granularity = "channel"
    ste: Ste = "plain"
    power_of_two: bool = False
    refresh: int | None = None

    def build(self, channels: int) -> Uniform:
        return Uniform(
            self.bits,
            grid=self.grid,
            range=self.range,
            percentile=self.percentile,
            k=self.k,
            distribution=self.distribution,
            granularity=self.granularity,
            channels=self.groups(channels),
            ste=self.ste,
            power_of_two=self.power_of_two,
            refresh=self.refresh,
        )

    def table_numbers(self, groups: int) -> int:
        return _table_numbers(self.grid, groups)


@register_membrane
class UniformMembrane(MembraneSetting, frozen=True, kw_only=True, tag="uniform"):
    """Uniform membrane quantizer and where it acts; see `isofire.neurons.MembraneQuantizer`.

    `range` is fixed [low, high], or estimated from the states of calibration data: [-c, c] if `signed`, else [0, c].
    `granularity` "tensor" is one range a layer, "channel" one a channel. The range stays as calibrated in training.
    """

    bits: int
    placement: Placement = "pre_fire"
    range: Span | MembraneRange = (-1.0, 1.0)
    signed: bool = True
    grid: Grid = "endpoint"
    percentile: float = 99.9
    k: float = 3.0
    granularity: Granularity = "tensor"
    ste: Ste = "plain"

    @property
    def is_estimated(self) -> bool:
        return isinstance(self.range, str)

    def build(self, channels: int) -> Uniform:
        return Uniform(
            self.bits,
            grid=self.grid,
            range=self.range,
            percentile=self.percentile,
            k=self.k,
            signed=self.signed,
            granularity=self.granularity,
            # a fixed range is the same for any number of channels
            channels=self.groups(channels) if self.is_estimated else 1,
            channel_axis=1,
            ste=self.ste,
            refresh=0,
        )

    def table_numbers(self, groups: int) -> int:
        return _table_numbers(self.grid, groups)


@register_constant
class UniformConstant(ConstantSetting, frozen=True, kw_only=True, tag="uniform"):
    """Biases of a layer, or thresholds of neurons that have their own, on 2^bits - 1 levels up to the largest
    magnitude."""

    targets = frozenset({"thresholds", "biases"})
    bits: int

    def table_numbers(self, groups: int) -> int:
        return groups

    def round(self, values: Tensor, *, synapse: bool = False) -> Tensor:
        top = max(1, 2 ** (self.bits - 1) - 1)
        largest = values.detach().double().abs().max()
        # a layer without biases has none afterwards
        step = (largest / top).where(largest > 0, largest.new_ones(()))
        return ((values.double() / step).round() * step).to(values.dtype)


def _table_numbers(grid: Grid, groups: int) -> int:
    """A step for each group, and an offset where that does not follow from the step and the bits."""
    return groups * (2 if grid == "endpoint" else 1)
