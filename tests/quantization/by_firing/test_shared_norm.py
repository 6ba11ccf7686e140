"""Norms that stand at several places, applied by the network or handed to the neurons."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import isofire
from isofire.neurons import LIF
from isofire.quantization import quantize_
from isofire.quantization.by_firing.trace import trace

IMAGES = torch.randn(60, 1, 6, 6, generator=torch.Generator().manual_seed(0))


class Twice(nn.Module):
    """A convolution and its norm at two places; at each the norm is applied by the network or by the neurons."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.ways = first, second
        self.stem, self.n0 = nn.Conv2d(1, 6, 3, padding=1), LIF()
        self.conv, self.bn = nn.Conv2d(6, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)
        self.n1, self.n2, self.head = LIF(), LIF(), nn.Linear(6, 5)
        with torch.no_grad():
            for layer in (self.stem, self.conv, self.head):
                layer.weight.mul_(3)
            self.bn.bias.fill_(0.3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.n0(self.stem(x).expand(5, -1, -1, -1, -1))
        for way, neuron in zip(self.ways, (self.n1, self.n2), strict=True):
            currents = self.conv(x.flatten(0, 1))
            currents = (self.bn(currents) if way == "network" else currents).unflatten(0, x.shape[:2])
            if way == "place":
                x = neuron(currents, self.bn)
            else:
                x = neuron(currents, norm=self.bn if way == "name" else None)
        return self.head(x.mean((0, -2, -1)))


@pytest.fixture(scope="module")
def full() -> dict[str, Tensor]:
    model = Twice("network", "network").train()
    with torch.no_grad():
        for _ in range(40):
            model(IMAGES)
    return model.state_dict()


def quantized(full: dict[str, Tensor], *ways: str, correct: str) -> dict[str, Tensor]:
    model = Twice(*ways).eval()
    model.load_state_dict(full)
    spec = isofire.QuantSpec(weights={"method": "gptq", "bits": 3}, correct=correct)
    return quantize_(model, spec, IMAGES).state_dict()


@pytest.mark.parametrize("correct", ["never", "bias"])
@pytest.mark.parametrize("ways", [("name", "name"), ("place", "place"), ("name", "network"), ("network", "name")])
def test_it_is_measured_on_all_that_it_is_given(full: dict[str, Tensor], ways: tuple[str, str], correct: str) -> None:
    wanted = quantized(full, "network", "network", correct=correct)
    found = quantized(full, *ways, correct=correct)
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, msg=name)


@pytest.mark.parametrize("ways", [("network", "network"), ("name", "name"), ("name", "network"), ("network", "place")])
def test_its_calls_are_counted_whoever_makes_them(ways: tuple[str, str]) -> None:
    model = Twice(*ways).eval()
    seen = trace(model, [IMAGES], ["stem", "conv", "head"])
    assert seen.calls["bn"] == 2
    assert seen.norms == {name: "bn" for name, way in zip(("n1", "n2"), ways, strict=True) if way != "network"}
    assert seen.order.index("conv") < seen.order.index("bn") < seen.order.index("n1")


def test_a_norm_handed_over_by_place_is_measured_before_its_neurons_fire(full: dict[str, Tensor]) -> None:
    steps: list[str] = []
    model = Twice("place", "place").eval()
    model.load_state_dict(full)
    spec = isofire.QuantSpec(weights={"method": "gptq", "bits": 3}, membrane={"method": "firing", "bits": 2})
    quantize_(model, spec, IMAGES, on_step=lambda step: steps.append(f"{step.layer}: {step.done}"))
    assert steps.index("bn: norm measured") < steps.index("n1: levels chosen")
