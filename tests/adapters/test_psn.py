"""SpikingJelly's parallel neuron takes all steps at once, and has no step mode."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

import isofire
from isofire.firing.cost import measure_cost, reach
from isofire.quantization import diagnose

neuron = pytest.importorskip("spikingjelly.activation_based.neuron")


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.fire, self.out = nn.Linear(6, 8), neuron.PSN(4), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.fire(self.a(x.unsqueeze(0).expand(4, *x.shape))))


@pytest.mark.skipif(not hasattr(neuron, "PSN"), reason="this version has no PSN")
def test_it_is_counted_compared_and_costs_what_its_spikes_do() -> None:
    model = Net().eval()
    x, y = torch.rand(40, 6, generator=torch.Generator().manual_seed(0)) * 3, torch.arange(40) % 3
    current = model.a(x).expand(4, 40, 8).flatten(1)
    spikes = (model.fire.weight @ current + model.fire.bias >= 0).float().sum() / 40
    assert spikes > 0
    spec = isofire.QuantSpec(weights={"method": "lsq", "bits": 4}, last_layer="quantize")
    found = isofire.compare(model, isofire.quantize_(copy.deepcopy(model), spec), (x, y))
    assert found.baseline.steps == 4
    cost = measure_cost(model, (x, y))
    assert cost.neurons[0].spikes.mean == pytest.approx(float(spikes))
    assert next(item for item in cost.synapses if item.name == "out").synops.mean == pytest.approx(3 * float(spikes))
    assert reach(model, x[:2])["fire"].tolist() == [3.0] * 8


@pytest.mark.skipif(not hasattr(neuron, "PSN"), reason="this version has no PSN")
def test_it_is_diagnosed_by_how_often_it_fires() -> None:
    model = Net().eval()
    x = torch.rand(40, 6, generator=torch.Generator().manual_seed(0)) * 3
    current = model.a(x).expand(4, 40, 8).flatten(1)
    fired = (model.fire.weight @ current + model.fire.bias >= 0).float()
    found = diagnose(model, x)
    (layer,) = found.layers
    assert (layer.threshold, layer.fires_from, layer.rate) == (None, None, pytest.approx(float(fired.mean())))
    assert found.healthy
    assert "note    fire: PSN has no threshold" in found.table()
    assert diagnose(model).layers[0].threshold is None
    with torch.no_grad():
        model.fire.bias -= 100.0
    silent = diagnose(model, x)
    assert [fault.found for fault in silent.faults if fault.state == "broken"] == [
        "no neuron fires: its currents are too weak"
    ]
