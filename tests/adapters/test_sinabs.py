"""What Sinabs' layers do beyond the contract: several spikes a step, a floor, and outputs [N, T, classes]."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

import isofire
from isofire.adapters import adapter_of
from isofire.errors import ModelError
from isofire.neurons import IF, MembraneQuantizer
from isofire.quantizers import Uniform

layers: Any = pytest.importorskip("sinabs.layers", reason="sinabs is not installed", exc_type=ImportError)


@pytest.mark.parametrize("placement", [None, "pre_fire", "post_reset"])
def test_counts_and_floor_are_those_of_isofire(placement: Any) -> None:
    # multiples of 1/64 are exact, whichever way the two write the floor
    x = (torch.randn(12, 5, 7, generator=torch.Generator().manual_seed(0)) * 96 + 16).round() / 64
    own, layer = IF(v_reset=None, several=True, v_floor=-1.0), layers.IAF(min_v_mem=-1.0)
    if placement is not None:
        own.membrane = MembraneQuantizer(Uniform(6, range=(-2.0, 5.875)), placement)
        adapter = adapter_of(layer)
        assert adapter is not None
        adapter.attach(layer, MembraneQuantizer(Uniform(6, range=(-2.0, 5.875)), placement))
    expected = own(x)
    assert expected.max() >= 3
    assert torch.equal(layer(x.transpose(0, 1)).transpose(0, 1), expected)


class Squeezed(nn.Module):
    """Built for batches of 12 images."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.first = nn.Conv2d(1, 4, 3), layers.IAFSqueeze(batch_size=12, min_v_mem=-1.0)
        self.second, self.last = nn.Linear(144, 10), layers.IAFSqueeze(batch_size=12, min_v_mem=-1.0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(self.conv(x.unsqueeze(1).expand(-1, 5, -1, -1, -1).flatten(0, 1)))
        return self.last(self.second(x.flatten(1))).unflatten(0, (-1, 5))


def test_a_batch_first_network_with_squeezed_layers_is_quantized_and_compared() -> None:
    torch.manual_seed(0)
    model = Squeezed()
    data = [(torch.randn(12, 1, 8, 8) * 2, torch.arange(12) % 10) for _ in range(2)]
    spec = isofire.QuantSpec(weights={"method": "lsq", "bits": 8}, membrane={"bits": 8, "range": "minmax"},
                             first_layer="quantize", last_layer="quantize")  # fmt: skip
    quantized = isofire.convert(isofire.calibrate(isofire.prepare(model, spec), data))
    found = isofire.compare(model, quantized, data)
    assert found.n_images == 24
    assert found.overall["mfr_fp"] > 0.02
    with torch.no_grad():
        assert model(data[0][0]).shape == (12, 5, 10)
    assert 0 < found.overall["emd_layer_mean"] < 0.2


def test_batches_of_another_size_than_a_layer_was_built_for_are_told() -> None:
    model, images, labels = Squeezed(), torch.randn(32, 1, 8, 8), torch.arange(32) % 10
    spec = isofire.QuantSpec(weights={"method": "lsq", "bits": 8}, membrane={"bits": 8, "range": "minmax"},
                             first_layer="quantize")  # fmt: skip
    told = r"'first' was built for batches of 12 images, but sees 160 rows .* give the data as a list of batches of 12"
    with pytest.raises(ModelError, match=told):
        isofire.quantize_(copy.deepcopy(model), spec, (images, labels))
    with pytest.raises(ModelError, match=told):
        isofire.compare(model, model, (images, labels))
    # a multiple fits the layer's own reshape, which would take images for steps
    twice = r"sees 120 rows \[N \* T, ...\] of a batch of 24"
    with pytest.raises(ModelError, match=twice):
        isofire.quantize_(copy.deepcopy(model), spec, (images[:24], labels[:24]))
    with pytest.raises(ModelError, match=twice), isofire.FiringRecorder(model):
        model(images[:24])
    batches = [(images[:12], labels[:12]), (images[12:24], labels[12:24])]
    assert isofire.compare(model, isofire.quantize_(copy.deepcopy(model), spec, batches), batches).n_images == 24
    assert not model.first._forward_pre_hooks
