"""One setting a quantizer: frozen values that say how weights or membranes are quantized, and build the quantizer."""

from __future__ import annotations

import math
from typing import Any, ClassVar, Literal

from msgspec import Struct

from isofire.errors import SpecError
from isofire.quantizers import LSQ, LQNet, Quantizer, TaWQ, Uniform

Span = tuple[float, float]
Grid = Literal["endpoint", "midtread", "twos_complement", "midrise"]
WeightRange = Literal["minmax", "percentile", "ksigma", "mse", "aciq"]
MembraneRange = Literal["minmax", "percentile", "ksigma", "mse"]
Granularity = Literal["tensor", "channel"]
Ste = Literal["clipped", "plain"]


class _Setting(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="method"):
    """Checks that hold for every setting, also when built in Python (where nothing decodes it)."""

    max_bits: ClassVar[int] = 16

    def __post_init__(self) -> None:
        bits = getattr(self, "bits", 1)
        if not (isinstance(bits, int) and 1 <= bits <= self.max_bits):
            raise SpecError(
                f"bits must be a whole number in 1..{self.max_bits}, got {bits!r}; "
                "for full precision leave the rule out"
            )
        for name in ("range", "clip"):
            span = getattr(self, name, None)
            if span is not None and not isinstance(span, str):
                _check_span(name, span)
        # the quantizer knows which of its settings exclude each other
        self.build(1)

    def build(self, channels: int) -> Quantizer:
        """An uncalibrated quantizer with this many groups (for granularity "tensor": one)."""
        raise NotImplementedError


def _check_span(name: str, span: Any) -> None:
    if len(span) != 2 or not all(isinstance(x, int | float) and math.isfinite(x) for x in span):
        raise SpecError(f"{name} must be two finite numbers [low, high], got {span!r}")
    if not span[0] < span[1]:
        raise SpecError(f"{name} must not be empty: low < high, got [{span[0]}, {span[1]}]; swap or widen it")


class UniformWeights(_Setting, frozen=True, kw_only=True, tag="uniform"):
    """Uniform grid; see `isofire.quantizers.Uniform`. `range` is fixed [low, high] or estimated from the weights."""

    bits: int
    grid: Grid = "endpoint"
    range: Span | WeightRange = "mse"
    percentile: float = 99.9
    k: float = 3.0
    distribution: Literal["gaussian", "laplace"] = "gaussian"
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
            channels=channels if self.granularity == "channel" else 1,
            ste=self.ste,
            power_of_two=self.power_of_two,
            refresh=self.refresh,
        )


class LSQWeights(_Setting, frozen=True, kw_only=True, tag="lsq"):
    """Learned step size; see `isofire.quantizers.LSQ`.

    `init`: the step before training has the least squared error ("mse"), or is Esser et al.'s 2 mean|w| / sqrt(Qp)
    ("mean"), which is meant for training only.
    """

    bits: int
    granularity: Granularity = "channel"
    init: Literal["mse", "mean"] = "mse"

    def build(self, channels: int) -> LSQ:
        groups = channels if self.granularity == "channel" else 1
        return LSQ(self.bits, granularity=self.granularity, channels=groups, init=self.init)


class LQNetWeights(_Setting, frozen=True, kw_only=True, tag="lqnet"):
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
            channels=channels if self.granularity == "channel" else 1,
            clip=self.clip,
            restarts=self.restarts,
            init=self.init,
            iterations=default if self.iterations is None else self.iterations,
        )


class TaWQWeights(_Setting, frozen=True, kw_only=True, tag="tawq"):
    """Ternary weights that change with the step; see `isofire.quantizers.TaWQ`. `steps` must equal the model's T."""

    steps: int = 4
    scale: Literal["inverse_density", "mse"] = "inverse_density"

    def build(self, channels: int) -> TaWQ:
        return TaWQ(self.steps, scale=self.scale, channels=channels)


WeightSetting = UniformWeights | LSQWeights | LQNetWeights | TaWQWeights


class UniformMembrane(_Setting, frozen=True, kw_only=True, tag="uniform"):
    """Uniform membrane quantizer and where it acts; see `isofire.neurons.MembraneQuantizer`.

    `range` is fixed [low, high], or estimated from the states of calibration data: [-c, c] if `signed`, else [0, c].
    `granularity` "tensor" is one range a layer, "channel" one a channel. The range stays as calibrated in training.
    """

    bits: int
    placement: Literal["pre_fire", "post_reset"] = "pre_fire"
    range: Span | MembraneRange = (-1.0, 1.0)
    signed: bool = True
    grid: Grid = "endpoint"
    percentile: float = 99.9
    k: float = 3.0
    granularity: Granularity = "tensor"
    ste: Ste = "plain"

    @property
    def is_estimated(self) -> bool:
        """Whether the range comes from calibration data."""
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
            channels=channels if self.granularity == "channel" and self.is_estimated else 1,
            channel_axis=1,
            ste=self.ste,
            refresh=0,
        )


MembraneSetting = UniformMembrane
