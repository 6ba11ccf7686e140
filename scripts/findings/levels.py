"""What uniform end-point grids do to the weights of the baseline: step, clipping, levels in use; nothing is run."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from isofire import QuantSpec
from isofire.quantization import make_plan
from isofire.spec import UniformWeights


@dataclass(frozen=True)
class GridUse:
    """One clipping range at one number of bits, over all quantized layers.

    Attributes
    ----------
    step
        Distance of neighbouring levels, in units of the weights.
    clipped
        Share of weights beyond the range.
    levels
        Levels that occur in a layer: fewest and most over the layers.
    sign_only
        Layers in which just the two levels around zero occur, of all layers.
    """

    clip: float
    bits: int
    step: float
    clipped: float
    levels: tuple[int, int]
    sign_only: tuple[int, int]


def grid_use(model: nn.Module, clip: float, bits: int) -> GridUse:
    """Quantize the layers that the study quantizes, and count."""
    setting = UniformWeights(bits=bits, grid="endpoint", range=(-clip, clip))
    weights = quantized_weights(model)
    codes = []
    for weight in weights:
        quantizer = setting.build(weight.shape[0])
        quantizer.calibrate(weight)
        codes.append(quantizer.codes(weight).unique().tolist())
    middle = {2 ** (bits - 1) - 1, 2 ** (bits - 1)}
    return GridUse(
        clip,
        bits,
        2 * clip / (2**bits - 1),
        float(torch.cat([(weight.abs() > clip).flatten() for weight in weights]).double().mean()),
        (min(map(len, codes)), max(map(len, codes))),
        (sum(set(found) <= middle for found in codes), len(codes)),
    )


def quantized_weights(model: nn.Module) -> list[Tensor]:
    """Weights of all but the first and the last layer."""
    spec = QuantSpec(weights=UniformWeights(bits=2, range=(-1.0, 1.0)))
    chosen = [choice.name for choice in make_plan(model, spec).choices if choice.setting is not None]
    return [model.get_submodule(name).get_parameter("weight").detach() for name in chosen]
