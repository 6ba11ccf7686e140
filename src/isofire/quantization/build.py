"""From a setting to its quantizer."""

from __future__ import annotations

from torch import Tensor

from isofire.quantizers import LSQ, LQNet, Quantizer, TaWQ, Uniform
from isofire.spec import (
    LQNetWeights,
    LSQWeights,
    TaWQWeights,
    UniformMembrane,
    UniformWeights,
    WeightSetting,
)


def weight_quantizer(setting: WeightSetting, weight: Tensor) -> Quantizer:
    """An uncalibrated quantizer for a weight [C_out, ...], with one group a channel or one in all."""
    channels = 1 if isinstance(setting, TaWQWeights) or setting.granularity == "tensor" else weight.shape[0]
    match setting:
        case UniformWeights():
            return Uniform(
                setting.bits,
                grid=setting.grid,
                range=setting.range,
                percentile=setting.percentile,
                k=setting.k,
                distribution=setting.distribution,
                granularity=setting.granularity,
                channels=channels,
                ste=setting.ste,
                power_of_two=setting.power_of_two,
                refresh=setting.refresh,
            )
        case LSQWeights():
            return LSQ(setting.bits, granularity=setting.granularity, channels=channels)
        case LQNetWeights():
            return LQNet(
                setting.bits,
                granularity=setting.granularity,
                channels=channels,
                clip=setting.clip,
                restarts=setting.restarts,
                init=setting.init,
            )
        case TaWQWeights():
            return TaWQ(setting.steps, scale=setting.scale)


def membrane_quantizer(setting: UniformMembrane, channels: int = 1) -> Uniform:
    """An uncalibrated quantizer for states [N, C, ...]; its range stays as calibrated, also in training."""
    return Uniform(
        setting.bits,
        grid=setting.grid,
        range=setting.range,
        percentile=setting.percentile,
        k=setting.k,
        signed=setting.signed,
        granularity=setting.granularity,
        channels=channels,
        channel_axis=1,
        ste=setting.ste,
        refresh=0,
    )
