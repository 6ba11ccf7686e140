"""Norms that see all steps at once, [T, N, C, ...], as SpikingJelly's do, are measured channel by channel."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import isofire
from isofire.neurons import LIF, PerStep, Repeat


class StepsNorm(nn.BatchNorm2d):
    """A norm over the channels of [T, N, C, H, W]."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.flatten(0, 1)).unflatten(0, x.shape[:2])


# as many images as channels too: the axis is not told by its length
@pytest.mark.parametrize("images", [6, 20])
@pytest.mark.parametrize("weights", ["gptq", "uniform"])
def test_a_norm_over_steps_has_the_statistics_of_its_channels(images: int, weights: str) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        Repeat(2),
        PerStep(nn.Conv2d(1, 6, 3, bias=False)),
        StepsNorm(6),
        LIF(),
        PerStep(nn.Flatten(), nn.Linear(216, 3)),
    )
    x = torch.randn(images, 1, 8, 8) + 0.5
    spec = isofire.QuantSpec(weights={"method": weights, "bits": 4}, first_layer="quantize", correct="bias")
    quantized = isofire.quantize_(model, spec, [(x, torch.zeros(images, dtype=torch.long))])
    norm = quantized[2]
    with torch.no_grad():
        seen = quantized[1](quantized[0](x)).flatten(0, 1).transpose(0, 1).flatten(1)
    assert torch.allclose(norm.running_mean, seen.mean(1), atol=1e-5)
    assert torch.allclose(norm.running_var, seen.var(1), rtol=1e-4)
