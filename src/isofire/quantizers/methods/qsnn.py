"""`qsnn`: Q-SNN's membranes, through tanh to the layer's largest."""

from __future__ import annotations

from typing import ClassVar

from isofire.quantizers.base import Granularity
from isofire.quantizers.neuron_facts import NeuronFacts
from isofire.quantizers.registry import register_membrane
from isofire.quantizers.setting import MembraneSetting, PostReset
from isofire.quantizers.squashed import SquashedLevels, check_bits


@register_membrane
class QSNNMembrane(MembraneSetting, frozen=True, kw_only=True, tag="qsnn"):
    """Levels a j / n, j = -n..n, n = 2^(bits-1) - 1, of tanh(V), with `a` the layer's largest |tanh(V)|.

    Wei et al. 2024, Q-SNN (github.com/Wenjie-Wei/Q-SNN, models/layers.py, u_q), after the reset. The source takes the
    largest of the batch at hand, so that a sample's spikes depend on its batch mates; here it is the largest of the
    calibration data, and stays. Its threshold is 1 and it leaves others open: V here is (V - rest) / (V_th - rest).
    Binary weights belong to the method too; for those take a weight method.

    Hardware: charge and comparison see the full sum; `bits` are stored from step to step.
    """

    max_bits: ClassVar[int] = 8
    numbers_a_group: ClassVar[int] = 1
    own_range: ClassVar[str] = "minmax"

    bits: int
    placement: PostReset = "post_reset"
    granularity: Granularity = "tensor"

    def build_for(self, channels: int, neuron: NeuronFacts) -> SquashedLevels:
        check_bits(self.method, self.bits)
        return SquashedLevels(self.bits, neuron, granularity=self.granularity, channels=self.groups(channels))
