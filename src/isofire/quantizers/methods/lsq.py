"""`lsq`: a step that is learned with the network, of weights or of membrane states."""

from __future__ import annotations

from typing import ClassVar, Literal

from isofire.quantizers.anchored import placed
from isofire.quantizers.base import Granularity
from isofire.quantizers.lsq import LSQ
from isofire.quantizers.neuron_facts import NeuronFacts
from isofire.quantizers.registry import register_membrane, register_weights
from isofire.quantizers.setting import MembraneSetting, Placement, WeightSetting
from isofire.quantizers.state_lsq import StateGrid, StateLSQ


@register_weights
class LSQWeights(WeightSetting, frozen=True, kw_only=True, tag="lsq"):
    """Learned step size; see `isofire.quantizers.LSQ`.

    `init`: the step before training has the least squared error among those that the range "mse" tries, or is Esser et
    al.'s 2 mean|w| / sqrt(Qp) ("mean"), which is meant for training only.
    """

    own_range: ClassVar[str] = "learned"
    numbers_a_group: ClassVar[int] = 1

    bits: int
    granularity: Granularity = "channel"
    init: Literal["mse", "mean"] = "mse"

    def build(self, channels: int) -> LSQ:
        return LSQ(self.bits, granularity=self.granularity, channels=self.groups(channels), init=self.init)


@register_membrane
class LSQMembrane(MembraneSetting, frozen=True, kw_only=True, tag="lsq"):
    """Learned step of the state, log2 s a parameter, held where V_th stays reachable; see `StateLSQ`.

    Before training the step is that of least squared error, on the states of calibration data, of 64 between the
    bounds, refined by alternating the nearest level and least squares. Esser et al. 2020 for the
    gradient and its scale; the bounds, the logarithm and the grid around the rest are this project's.

    Hardware: charge and comparison see the full sum; `bits` are stored from step to step (`post_reset`). With
    `pre_fire` the comparison is one with the code: the highest means "fires", decisions are exact, and 2^bits - 1
    levels are stored.

    Parameters
    ----------
    above
        Levels above the rest. Default: half of those that are stored, rounded down.
    """

    max_bits: ClassVar[int] = 8
    own_range: ClassVar[str] = "learned"
    numbers_a_group: ClassVar[int] = 1

    bits: int
    placement: Placement = "post_reset"
    above: int | None = None
    granularity: Granularity = "tensor"

    def build_for(self, channels: int, neuron: NeuronFacts) -> StateLSQ:
        below, above, fires = placed(self, neuron, self.above)
        grid = StateGrid(below, above, neuron, fires)
        return StateLSQ(grid, granularity=self.granularity, channels=self.groups(channels))
