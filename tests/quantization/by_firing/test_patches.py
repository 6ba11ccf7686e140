"""What a layer's weights are multiplied with: patches times weights are the layer's output."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from isofire.errors import SpecError
from isofire.quantization.by_firing.patches import moments, patches
from isofire.quantization.by_firing.trace import Call

LAYERS = {
    "linear": (nn.Linear(7, 5, bias=False), (3, 7)),
    "conv1d": (nn.Conv1d(4, 6, 3, padding=1, stride=2, bias=False), (3, 4, 9)),
    "conv2d": (nn.Conv2d(4, 6, (3, 2), padding=(1, 0), bias=False), (3, 4, 7, 6)),
    "grouped": (nn.Conv2d(4, 6, 3, groups=2, padding=1, bias=False), (3, 4, 5, 5)),
    "depthwise": (nn.Conv2d(4, 4, 3, groups=4, padding=1, stride=2, bias=False), (3, 4, 6, 6)),
    "dilated": (nn.Conv2d(2, 3, 3, dilation=2, padding="same", bias=False), (2, 2, 8, 8)),
    "reflected": (nn.Conv2d(2, 3, 3, padding=1, padding_mode="reflect", bias=False), (2, 2, 5, 5)),
    "conv3d": (nn.Conv3d(2, 3, 2, bias=False), (2, 2, 4, 4, 4)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_patches_times_weights_are_the_output(name: str):
    layer, shape = LAYERS[name]
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    found = patches(layer, x)
    weight = layer.weight.flatten(1).unflatten(0, (len(found), -1))
    out = torch.einsum("gnk,gok->ngo", found, weight).flatten(1)
    expected = layer(x)
    expected = expected if expected.ndim == 2 else expected.movedim(1, -1).flatten(0, -2)
    torch.testing.assert_close(out, expected)


@pytest.mark.parametrize("name", LAYERS)
def test_moments_are_summed_over_calls_steps_and_images(name: str):
    layer, shape = LAYERS[name]
    x = torch.randn(2, *shape, generator=torch.Generator().manual_seed(1))
    found = moments(layer, [Call((x[:1],), {}), Call((x[1],), {})])
    seen = patches(layer, x.flatten(0, 1)).double()
    torch.testing.assert_close(found.squares, seen.mT @ seen, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.total, seen.sum(1), rtol=1e-5, atol=1e-5)
    about = seen - seen.mean(1, keepdim=True)
    torch.testing.assert_close(found.centred, about.mT @ about, rtol=1e-4, atol=1e-4)
    assert found.rows == seen.shape[1]


def test_another_kind_of_layer_is_refused():
    with pytest.raises(SpecError, match="works on Linear, Conv1d, Conv2d, Conv3d, got ConvTranspose2d"):
        moments(nn.ConvTranspose2d(1, 1, 2), [])
