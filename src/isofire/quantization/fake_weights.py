"""The fake-quantized weights of a prepared model."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, nn
from torch.nn.utils import parametrize

from isofire.quantizers import Quantizer


def weight_quantizers(model: nn.Module) -> Iterator[tuple[str, Quantizer]]:
    """Name of each layer whose weight is fake-quantized, and its quantizer."""
    for name, module in model.named_modules():
        if parametrize.is_parametrized(module, "weight"):
            for quantizer in module.parametrizations["weight"]:  # type: ignore[index]
                if isinstance(quantizer, Quantizer):
                    yield name, quantizer


def original(layer: nn.Module) -> Tensor:
    """The full-precision weight under a layer's quantizer."""
    return layer.parametrizations["weight"].original  # type: ignore[index,union-attr]
