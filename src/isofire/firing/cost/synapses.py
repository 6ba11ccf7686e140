"""Which weighted layers a model has, and how many synapses each of their inputs drives."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from isofire.quantization.temporal import TemporalLayer

Weighted = nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Linear | TemporalLayer
Which = Literal["all", "nonzero"]

_SAMPLE_DIMS = {nn.Linear: 1, nn.Conv1d: 2, nn.Conv2d: 3, nn.Conv3d: 4}


def weighted_layers(model: nn.Module) -> dict[str, Weighted]:
    """Convolutions and linear layers by module name, in the model's order."""
    return {name: module for name, module in model.named_modules() if isinstance(module, Weighted)}


def sample_dims(layer: Weighted) -> int:
    """Axes of one input, without those of time and images: 1 for a linear layer, 3 for a 2-D convolution."""
    plain = layer.template if isinstance(layer, TemporalLayer) else layer
    return next(dims for kind, dims in _SAMPLE_DIMS.items() if isinstance(plain, kind))


def fan_out(layer: Weighted, shape: tuple[int, ...], which: Which = "all") -> Tensor:
    """Synapses from each input element: float64 [*shape], fewer at the borders of a convolution; [T, *shape] for
    weights that change with the step.

    It is the gradient of the layer's summed output with every weight replaced by 1 (or by whether it is not 0), so
    stride, padding, dilation and groups are the layer's own.

    Parameters
    ----------
    shape
        Of one input, without the axes of time and images.
    which
        "all" synapses, or those whose weight is "nonzero".

    Examples
    --------
    >>> fan_out(nn.Conv2d(1, 8, 3, padding=1), (1, 3, 3))[0].int().tolist()
    [[32, 48, 32], [48, 72, 48], [32, 48, 32]]
    """
    weight = layer.weight.detach().cpu()
    ones = torch.ones_like(weight) if which == "all" else weight != 0
    if not isinstance(layer, TemporalLayer):
        return _gradient(layer, ones.double(), shape)
    return torch.stack([_gradient(layer.template, step.double(), shape) for step in ones])


def fan_in(layer: Weighted) -> int:
    """Synapses that end in one output, away from the borders."""
    weight = layer.weight[0, 0] if isinstance(layer, TemporalLayer) else layer.weight[0]
    return weight.numel()


def _gradient(layer: nn.Module, weight: Tensor, shape: tuple[int, ...]) -> Tensor:
    with torch.inference_mode(False), torch.enable_grad():
        x = torch.zeros((1, *shape), dtype=torch.float64, requires_grad=True)
        if isinstance(layer, nn.Linear):
            y = F.linear(x, weight)
        else:
            assert isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d)
            y = layer._conv_forward(x, weight, None)
        (found,) = torch.autograd.grad(y.sum(), x)
    return found[0]


def is_whole(x: Tensor) -> bool:
    """Whether every value is a count: 0, 1, 2, ... (spikes, and sums of spikes)."""
    return bool((x >= 0).all()) and bool((x == x.round()).all())
