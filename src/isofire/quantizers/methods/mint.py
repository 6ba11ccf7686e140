"""`mint`: membranes on the scale of the weights before them (MINT)."""

from __future__ import annotations

from typing import ClassVar, Literal

from isofire.quantizers.base import Quantizer
from isofire.quantizers.neuron_facts import NeuronFacts
from isofire.quantizers.registry import register_membrane
from isofire.quantizers.setting import MembraneSetting, PostReset
from isofire.quantizers.squashed import SquashedLevels, check_bits
from isofire.quantizers.weight_scale import WeightScale


@register_membrane
class MintMembrane(MembraneSetting, frozen=True, kw_only=True, tag="mint"):
    """Levels a j / n, j = -n..n, n = 2^(bits-1) - 1, whose range `a` is that of the layer's weights (arXiv 2305.09850).

    Yin et al. 2024, MINT (github.com/RuokaiYin/MINT_Quantization, training_utils.py, u_q): u = tanh(U), clamped to
    +-a, rounded, after reset and leak. With as many bits as the weights, weights and states are multiples of one step,
    and the comparison needs no multiplier. Of weights in two's complement `a` is the highest level. `squash = false`
    leaves out the tanh, which no integer hardware has.

    What the source leaves open, or differs: its network folds batch norms before it quantizes, so that one `a` serves a
    layer; here norms stay, and each channel has the weights' `a` times what its norm multiplies by. The potential is
    stored before the leak, as isofire's neurons keep it: the same value, in units of gain / leak. `a` is that of
    calibration; in training the source learns it with the weights, here it stays, so that learned weight scales part
    from it. The first layer's membranes, which the source leaves in full precision, need a rule here.

    Hardware: an integer accumulator as wide as the sum of weights; `bits` are stored from step to step.
    """

    max_bits: ClassVar[int] = 8
    shares_scale: ClassVar[bool] = True
    numbers_a_group: ClassVar[int] = 1
    own_range: ClassVar[str] = "weights"

    bits: int
    placement: PostReset = "post_reset"
    squash: bool = True
    granularity: Literal["channel"] = "channel"

    def build_for(self, channels: int, neuron: NeuronFacts) -> SquashedLevels:
        check_bits(self.method, self.bits)
        return SquashedLevels(self.bits, neuron, squash=self.squash, granularity="channel", channels=channels)

    def take_scale(self, quantizer: Quantizer, scale: WeightScale) -> None:
        assert isinstance(quantizer, SquashedLevels)
        quantizer.set_largest(scale.step * scale.largest / scale.unit, scale.unit)
