"""`squat`: snnTorch's grid of the membrane, even or dense around the threshold."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import ClassVar, Literal

import numpy as np

from isofire.errors import SpecError
from isofire.quantizers.base import Granularity
from isofire.quantizers.levels import Levels
from isofire.quantizers.neuron_facts import NeuronFacts
from isofire.quantizers.registry import register_membrane
from isofire.quantizers.setting import MembraneSetting, Placement

# Ratio of neighbouring gaps at 1 to 7 bits; from 8 bits on the last.
_RATIOS = (0.05, 0.1, 0.3, 0.5, 0.7, 0.9, 0.925, 0.95)


@register_membrane
class SquatMembrane(MembraneSetting, frozen=True, kw_only=True, tag="squat"):
    """`snntorch.functional.quant.state_quant` with the layer's own threshold (SQUAT, arXiv 2404.19668).

    2^bits levels from -V_th (1 + lower) to V_th (1 + upper), each potential to the nearest, before it is compared with
    the threshold. "uniform": even. "threshold" and "zero": gaps shrink by `ratio` from one to the next towards V_th, or
    0. Neither the rest nor V_th is an edge or, in general, a level: the threshold in effect lies between two levels.

    The gradient is straight through. snnTorch sends potentials beyond 2^24 spacings, where float32 cannot tell
    distances apart, to its first level; here they take the nearest. Levels do not move with a rest other than 0.

    Hardware: a register of `bits`, which is compared, reset and stored (`pre_fire`, as published); with `post_reset`
    the full sum is compared and `bits` are stored.

    Parameters
    ----------
    spacing
        snnTorch's `uniform=True`; else `thr_centered` True or False.
    lower, upper
        snnTorch's `lower_limit` and `upper_limit`.
    ratio
        snnTorch's `multiplier`; default: by bits, from 0.05 to 0.95.
    """

    max_bits: ClassVar[int] = 8

    bits: int
    placement: Placement = "pre_fire"
    spacing: Literal["uniform", "threshold", "zero"] = "uniform"
    lower: float = 0.0
    upper: float = 0.2
    ratio: float | None = None
    granularity: Granularity = "tensor"

    @property
    def is_estimated(self) -> bool:
        return False

    def build_for(self, channels: int, neuron: NeuronFacts) -> Levels:
        self._check()
        levels = self._levels(neuron.threshold)
        if any(np.float32(a) >= np.float32(b) for a, b in pairwise(levels)):
            raise SpecError(
                f"with ratio {self.ratio} and {self.bits} bits, levels of squat coincide as float32 numbers; take one "
                "nearer to 1, or leave it out for snnTorch's own"
            )
        return Levels(levels, granularity=self.granularity, channel_axis=1)

    def table_numbers(self, groups: int) -> int:
        return 2**self.bits if self.spacing != "uniform" else 2

    @property
    def range_label(self) -> str:
        return f"[{-1 - self.lower:g}, {1 + self.upper:g}] V_th"

    def _levels(self, threshold: float) -> list[float]:
        low, high, count = -threshold * (1 + self.lower), threshold * (1 + self.upper), 2**self.bits
        if self.spacing == "uniform":
            return [low + (high - low) * j / (count - 1) for j in range(count)]
        centre = threshold if self.spacing == "threshold" else 0.0
        ratio = _RATIOS[min(self.bits, len(_RATIOS)) - 1] if self.ratio is None else self.ratio
        # float64 as in snnTorch, where the share decides about a level
        below = math.floor(count * ((centre - low) / (high - low)))
        above = count - below
        return [
            *(low + (centre - low) * _part(j, below, ratio) for j in range(below)),
            *(high - (high - centre) * _part(j, above, ratio) for j in reversed(range(above))),
        ]

    def _check(self) -> None:
        if self.lower <= -1 or self.upper < 0 or (self.upper == 0 and self.spacing != "uniform"):
            raise SpecError(
                "squat needs lower > -1 and upper >= 0 (above 0 unless spacing is 'uniform'), got "
                f"lower={self.lower:g} and upper={self.upper:g}; snnTorch's are 0 and 0.2"
            )
        if self.ratio is not None and not 0 < self.ratio < 1:
            raise SpecError(f"ratio must lie above 0 and below 1, got {self.ratio:g}; leave it out for snnTorch's own")


def _part(steps: int, count: int, ratio: float) -> float:
    """Share of the way after so many of `count` gaps, each `ratio` of the one before."""
    return (1 - ratio**steps) / (1 - ratio**count)
