"""The memory layout that a model can be trained in."""

from __future__ import annotations

import torch
from torch import nn


def use_channels_last(model: nn.Module, wanted: bool, device: torch.device) -> bool:
    """Whether to train in channels_last: if it is wanted and the machine's convolutions can be trusted with it.

    On a CPU, oneDNN (3.12, AVX2) writes past the end of a buffer where it computes the weight gradient of a strided
    1x1 convolution of fewer than 8 input channels in channels_last. A model that has one keeps torch's own layout.
    """
    if device.type != "cpu":
        return wanted
    return wanted and not any(_overruns(module) for module in model.modules())


def _overruns(module: nn.Module) -> bool:
    return (
        isinstance(module, nn.Conv2d)
        and module.kernel_size == (1, 1)
        and max(int(step) for step in module.stride) > 1
        and module.in_channels // module.groups < 8
    )
