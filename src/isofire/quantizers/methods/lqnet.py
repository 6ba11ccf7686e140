"""`lqnet`: levels spanned by a learned basis, of weights or of membrane states."""

from __future__ import annotations

from typing import ClassVar, Literal

from isofire.quantizers.anchored import placed
from isofire.quantizers.base import Granularity
from isofire.quantizers.lqnet import LQNet
from isofire.quantizers.neuron_facts import NeuronFacts
from isofire.quantizers.registry import register_membrane, register_weights
from isofire.quantizers.setting import MembraneSetting, Placement, Span, WeightSetting
from isofire.quantizers.state_lqnet import StateLQNet, Statistics


@register_weights
class LQNetWeights(WeightSetting, frozen=True, kw_only=True, tag="lqnet"):
    """Learned basis of LQ-Nets; see `isofire.quantizers.LQNet`.

    `clip` clamps the weights first (the paper's range). `init` "data" fits the basis to the weights, for trained
    networks; "official" is LQ-Nets' own start, for training from scratch. `iterations` of fitting: by default 300 for
    "data", none for "official".
    """

    max_bits: ClassVar[int] = 8
    own_range: ClassVar[str] = "learned"

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


@register_membrane
class LQNetMembrane(MembraneSetting, frozen=True, kw_only=True, tag="lqnet"):
    """Learned basis of the state, the rest a level and V_th a bin's edge; see `isofire.quantizers.StateLQNet`.

    The basis is fitted to the states of calibration data and follows them in training, by a running average of
    what it is computed from: `statistics` "moments" or "histogram". Zhang et al. 2018 for the form of the levels and
    the alternation; codes in {0, 1} of either sign and the averages are this project's.

    Hardware: charge and comparison see the full sum; `bits` are stored from step to step (`post_reset`), decoded by one
    add per set bit. With `pre_fire` one code means "fires" (decisions are exact) and 2^bits - 1 levels are stored.
    """

    max_bits: ClassVar[int] = 8
    own_range: ClassVar[str] = "learned"

    bits: int
    placement: Placement = "post_reset"
    granularity: Granularity = "tensor"
    statistics: Statistics = "moments"

    def build_for(self, channels: int, neuron: NeuronFacts) -> StateLQNet:
        _, _, fires = placed(self, neuron)
        return StateLQNet(
            self.bits,
            neuron,
            fires=fires,
            statistics=self.statistics,
            granularity=self.granularity,
            channels=self.groups(channels),
        )

    def table_numbers(self, groups: int) -> int:
        # a basis vector
        return groups * self.bits
