"""Quantized weights as signed whole numbers, from prepared and from converted networks."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from isofire.errors import ModelError
from isofire.quantization.plan import make_plan
from isofire.quantization.verbs import spec_of
from isofire.quantizers import WeightSetting
from isofire.quantizers.lattice import codes_of


class SignedWeights(NamedTuple):
    """weight = scale * (codes - zero_point), up to the rounding of float32.

    `codes` int32 of the weight's shape, `scale` float64 [out] (one number where all outputs share it), `zero_point` 0:
    levels without a 0 (`endpoint`, `midrise`) are odd codes, which take one bit more than there are bits of levels.
    """

    codes: Tensor
    scale: Tensor
    zero_point: int


def signed_weights(model: nn.Module) -> dict[str, SignedWeights]:
    """Signed codes of every quantized layer, also after `convert` and from files.

    Raises
    ------
    ModelError
        If the model is in full precision, or a layer's levels have no common step, as those of LQ-Nets, or one a step.

    Examples
    --------
    >>> signed_weights(quantized)["0.0"].codes  # doctest: +SKIP
    """
    spec = spec_of(model)
    if spec is None:
        raise ModelError("signed weights are those of a quantized network, this one is in full precision")
    found = {}
    for choice in make_plan(model, spec).chosen("weights"):
        setting, weight = choice.setting, model.get_submodule(choice.name).weight
        assert isinstance(setting, WeightSetting)
        assert isinstance(weight, Tensor)
        codes = codes_of(weight, 24) if setting.time_steps is None else None
        if codes is None or not codes.exact:
            raise ModelError(
                f"the levels of {choice.name!r} ({setting.describe()}) have no common step, so no scale gives them; "
                "integer_weights gives codes and levels of a prepared network"
            )
        scale = codes.step[:1] if codes.step.unique().numel() == 1 else codes.step
        found[choice.name] = SignedWeights(codes.codes.to(torch.int32), scale, 0)
    if not found:
        raise ModelError("this network's weights are in full precision; its spec quantizes other things")
    return found
