"""`spquant`: SpQuant-SNN's integer levels of the membrane, three of them in the paper."""

from __future__ import annotations

from typing import ClassVar

from isofire.errors import SpecError
from isofire.quantizers.base import Granularity
from isofire.quantizers.levels import MOST
from isofire.quantizers.neuron_facts import NeuronFacts
from isofire.quantizers.registry import register_membrane
from isofire.quantizers.setting import MembraneSetting, PostReset
from isofire.quantizers.stepwise import StepwiseLevels


@register_membrane
class SpQuantMembrane(MembraneSetting, frozen=True, kw_only=True, tag="spquant"):
    """Levels rest + j (V_th - rest) for j = lowest..1: ternary {-V_th, 0, V_th} by default, log2 3 = 1.58 bits.

    Hasssan et al. 2024, SpQuant-SNN, Frontiers in Neuroscience (github.com/Ahmedhasssan/IM_SNN-SpQuant_SNN,
    models/spikes/qmem.py): clamped between the lowest level and V_th, then to the nearest level, after the reset. The
    gradient is theirs too: the sum over the bins' edges e of the slope of a sigmoid, 2 sigma'(2 (v - e) / V_th), in
    place of a straight-through one.

    The source has whole numbers as levels and V_th = 1; for other thresholds it leaves open whether they scale along.
    Here they do: in units of V_th - rest everything is as with V_th = 1. Its published code starts at -3 (five levels),
    the paper's "1.58 bit" is -1; a potential on an edge, where the source rounds to the first of two equal distances,
    takes the lower level as there.

    Hardware: charge and comparison see the full sum; log2(2 - lowest) bits are stored from step to step.
    """

    own_range: ClassVar[str] = "threshold"

    lowest: int = -1
    placement: PostReset = "post_reset"
    granularity: Granularity = "tensor"

    @property
    def is_estimated(self) -> bool:
        return False

    def build_for(self, channels: int, neuron: NeuronFacts) -> StepwiseLevels:
        if not 2 - MOST <= self.lowest <= 0:
            raise SpecError(
                f"lowest must be {2 - MOST} to 0, the lowest level in units of the threshold, got {self.lowest}; "
                "-1 is SpQuant's ternary grid"
            )
        levels = [neuron.rest + j * neuron.reach for j in range(self.lowest, 2)]
        return StepwiseLevels(levels, unit=neuron.reach, granularity=self.granularity, channel_axis=1)

    def table_numbers(self, groups: int) -> int:
        return 1
