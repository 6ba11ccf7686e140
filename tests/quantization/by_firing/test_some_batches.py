"""Layers that some calibration batches alone reach are calibrated on those, whichever comes first."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

import isofire
from isofire.neurons import LIF
from isofire.quantization import quantize_
from isofire.quantization.by_firing.fired import firing_of
from isofire.quantization.by_firing.trace import trace

LABELS = torch.arange(64) % 3


class Gated(nn.Module):
    """Dark batches go past a layer, its norm and its neurons."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.bright, self.bn, self.lit = nn.Linear(6, 6), nn.BatchNorm1d(6), LIF(v_threshold=0.3)
        self.a, self.n, self.b = nn.Linear(6, 8), LIF(v_threshold=0.2), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        steps = x.unsqueeze(0).repeat(4, 1, 1)
        if x.mean() > 1:
            steps = self.lit(self.bn(self.bright(x)).unsqueeze(0).repeat(4, 1, 1))
        return self.b(self.n(self.a(steps)))


def _batch(scale: float) -> tuple[Tensor, Tensor]:
    # inputs that go together, or roundings would be the nearest
    return torch.rand(64, 6, generator=torch.Generator().manual_seed(3)).cumsum(1) / 3 * scale, LABELS


BRIGHT, DARK = _batch(4), _batch(1)
GPTQ = {"method": "gptq", "bits": 2}
LEVELS = {"method": "firing", "bits": 3, "placement": "post_reset"}


@pytest.mark.parametrize("batches", [[BRIGHT, DARK], [DARK, BRIGHT]], ids=["first", "last"])
def test_they_are_calibrated_on_the_batches_that_reach_them(batches: list[tuple[Tensor, Tensor]]) -> None:
    spec = isofire.QuantSpec(weights=GPTQ, membrane=LEVELS, first_layer="quantize", correct="bias")
    model = Gated().eval()
    found, alone = (quantize_(copy.deepcopy(model), spec, data) for data in (batches, [BRIGHT]))
    nearest = isofire.QuantSpec(weights={"method": "uniform", "bits": 2}, first_layer="quantize")
    assert not torch.equal(found.bright.weight, quantize_(copy.deepcopy(model), nearest, batches).bright.weight)
    kept = [name for name in alone.state_dict() if name.startswith(("bright", "bn", "lit"))]
    assert len(kept) > 6
    assert all(torch.equal(found.state_dict()[name], alone.state_dict()[name]) for name in kept)
    # the neurons fire nearly as in full precision, on all batches
    fired, should = (firing_of(net, [x for x, _ in batches]).counts["lit"] for net in (found, model))
    assert float((fired - should).abs().sum()) < 0.5 * float(should.sum())


def test_the_order_is_that_of_the_calls_whichever_batch_makes_them() -> None:
    model, layers = Gated(), ["bright", "a", "b"]
    for batches in ([BRIGHT[0], DARK[0]], [DARK[0], BRIGHT[0]]):
        found = trace(model, batches, layers)
        assert found.order == ("bright", "bn", "lit", "a", "n", "b")
        assert found.calls == dict.fromkeys(found.order, 1)


def test_a_layer_that_no_batch_reaches_is_left() -> None:
    model = Gated().eval()
    spec = isofire.QuantSpec(weights=GPTQ, first_layer="quantize")
    quantized = quantize_(copy.deepcopy(model), spec, [DARK])
    assert torch.equal(quantized.bn.running_mean, model.bn.running_mean)
