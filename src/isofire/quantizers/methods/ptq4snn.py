"""`ptq4snn`: membranes on a power of two times the scale of the weights before them."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch

from isofire.quantizers.base import Quantizer
from isofire.quantizers.levels import Levels
from isofire.quantizers.neuron_facts import NeuronFacts
from isofire.quantizers.registry import register_membrane
from isofire.quantizers.setting import MembraneSetting, PostReset
from isofire.quantizers.squashed import check_bits
from isofire.quantizers.table import Table
from isofire.quantizers.weight_scale import WeightScale


class _Bridged(Levels):
    """Levels that remember how far the threshold lies above the rest."""

    def __init__(self, bits: int, neuron: NeuronFacts, channels: int) -> None:
        super().__init__(2**bits, granularity="channel", channels=channels, channel_axis=1)
        self.neuron = neuron


@register_membrane
class PTQ4SNNMembrane(MembraneSetting, frozen=True, kw_only=True, tag="ptq4snn"):
    """Integers -2^(b-1)..2^(b-1)-1 times a step s_w 2^k for each channel, s_w that of its weights (arXiv 2608.07066).

    k = round(log2((V_th - rest) / (Q s_w))), Q = 2^(b-1) - 1: the step is nearest (as a power) to what puts the
    threshold at the top level, and sums of weights are aligned with the state by a shift. After reset and leak; the
    gradient is straight through (github.com/dongfengwuyishi/ptq4nn, ptq4snn/quantization/quantized_module.py).

    Left out of the method: currents are not rounded to the state's step before they are added, as its "bridge" mode
    does; bits a channel by rate and salience, for which see `isofire allocate`; AdaRound of the weights, for which see
    `gptq`. The source folds batch norms first, here a channel's s_w holds what its norm multiplies by. In training k
    stays as calibrated.

    Hardware: an integer accumulator as wide as the sum of weights, a shifter; `bits` are stored from step to step.
    """

    max_bits: ClassVar[int] = 8
    shares_scale: ClassVar[bool] = True
    numbers_a_group: ClassVar[int] = 1
    own_range: ClassVar[str] = "weights"

    bits: int
    placement: PostReset = "post_reset"
    granularity: Literal["channel"] = "channel"

    def build_for(self, channels: int, neuron: NeuronFacts) -> Levels:
        check_bits(self.method, self.bits)
        return _Bridged(self.bits, neuron, channels)

    def take_scale(self, quantizer: Quantizer, scale: WeightScale) -> None:
        assert isinstance(quantizer, _Bridged)
        half = 2 ** (self.bits - 1)
        wanted = quantizer.neuron.reach / ((half - 1) * scale.step)
        step = (scale.step * wanted.log2().round().exp2()).unsqueeze(1)
        places = torch.arange(-half, half, dtype=torch.float64, device=step.device)
        rest = quantizer.neuron.rest
        quantizer.set_table(Table((rest + step * (places[:-1] + 0.5)).float(), (rest + step * places).float()))
