"""Layers that are called by keyword, `neuron(x=currents)`, are quantized and measured as those called by place."""

from __future__ import annotations

from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

import isofire
from isofire.firing.cost import measure_cost
from isofire.neurons import IF, LIF
from isofire.quantization import calibrate_, prepare_, reestimate_batch_norm, repair_

IMAGES = torch.rand(24, 2, 6, 6, generator=torch.Generator().manual_seed(0)) * 3
LABELS = torch.zeros(24, dtype=torch.int64)


class Net(nn.Module):
    """Strided 1x1 convolution, norm, neurons, linear layer, neurons, readout; each called one way or the other."""

    def __init__(self, by_keyword: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.by_keyword = by_keyword
        self.conv, self.norm, self.first = nn.Conv2d(2, 6, 1, stride=2, bias=False), nn.BatchNorm2d(6), LIF()
        self.hidden, self.second, self.out = nn.Linear(54, 16), IF(), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self._call(self.norm, input=self._call(self.conv, input=x))
        spikes = self._call(self.first, x=x.expand(5, *x.shape))
        return self._call(self.out, input=self._call(self.second, x=self._call(self.hidden, input=spikes.flatten(2))))

    def _call(self, module: nn.Module, **given: Tensor) -> Tensor:
        return module(**given) if self.by_keyword else module(*given.values())


@pytest.mark.parametrize(
    "values",
    [
        {"weights": {"method": "gptq", "bits": 3}},
        {"weights": {"method": "gptq", "bits": 3}, "correct": "bias", "reestimate_bn": "always"},
        {"weights": {"method": "lsq", "bits": 3}, "reestimate_bn": "always"},
        {"membrane": {"method": "firing", "bits": 2}},
        {"membrane": {"method": "firing", "bits": 2, "granularity": "channel"}, "correct": "bias"},
        {"membrane": {"bits": 3, "range": "minmax", "granularity": "channel"}},
    ],
)
def test_all_that_is_chosen_is_the_same(values: dict[str, Any]) -> None:
    spec = isofire.QuantSpec.from_dict({"first_layer": "quantize", "last_layer": "quantize", **values})
    one, other = (isofire.quantize_(Net(how).eval(), spec, (IMAGES, LABELS)) for how in (False, True))
    states = one.state_dict(), other.state_dict()
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
    assert torch.equal(one(IMAGES), other(IMAGES))


def test_costs_and_norms_and_repairs_are_the_same() -> None:
    models = [Net(how).eval() for how in (False, True)]
    costs = [measure_cost(model, (IMAGES, LABELS)) for model in models]
    assert costs[0].synops == costs[1].synops
    assert costs[0].synapses == costs[1].synapses
    assert costs[0].memory == costs[1].memory
    for model in models:
        reestimate_batch_norm(model, [IMAGES])
    first, second = (model.norm.state_dict() for model in models)
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    with torch.no_grad():
        for model in models:
            model.hidden.bias.sub_(1.0)
    found = [repair_(model, Net(False).eval(), IMAGES) for model in models]
    assert found[0] == found[1]
    assert any(item.note is None for item in found[0])


def test_training_brings_the_inputs_of_a_strided_convolution_into_torch_s_own_layout() -> None:
    # channels_last inputs of a strided 1x1 convolution with few channels write behind their buffer in its backward pass
    spec = isofire.QuantSpec(weights={"method": "lsq", "bits": 3}, first_layer="quantize", last_layer="quantize")
    gradients = []
    for how in (False, True):
        model = prepare_(Net(how), spec).train()
        calibrate_(model, (IMAGES, LABELS))
        seen: list[bool] = []
        model.get_submodule("norm").register_forward_hook(
            lambda _m, _i, output, seen=seen: seen.append(cast("Tensor", output).is_contiguous())
        )
        model(IMAGES.to(memory_format=torch.channels_last)).sum().backward()
        assert seen == [True]
        gradients.append([p.grad for p in model.parameters() if p.grad is not None])
    assert len(gradients[0]) == len(gradients[1]) > 0
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))
