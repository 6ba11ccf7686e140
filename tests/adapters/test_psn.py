"""SpikingJelly's parallel neuron takes all steps at once, and has no step mode."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

import isofire
from isofire.errors import ModelError
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


WINDOWS = {
    "Sliding, k = 4": (lambda: neuron.SlidingPSN(k=4), 1 + 2 + 3 + 4, 4),
    "Sliding, k = 3": (lambda: neuron.SlidingPSN(k=3), 1 + 2 + 3 + 3, 3),
    "Sliding, k = 1": (lambda: neuron.SlidingPSN(k=1), 4, 1),
    "Masked, k = 2": (lambda: neuron.MaskedPSN(T=4, k=2, lambda_init=1.0), 1 + 2 + 2 + 2, 2),
    "Masked, open": (lambda: neuron.MaskedPSN(T=4, k=2, lambda_init=0.5), 16, 4),
    "PSN": (lambda: neuron.PSN(T=4), 16, 4),
}


class Modes(nn.Module):
    def __init__(self, fire: nn.Module, mode: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.fire, self.out, self.mode = nn.Linear(6, 8), fire, nn.Linear(8, 3), mode
        if hasattr(fire, "step_mode"):
            fire.step_mode = mode  # pyright: ignore[reportArgumentType]
        with torch.no_grad():
            self.a.weight *= 5
            fire.bias.fill_(-0.1)  # pyright: ignore[reportCallIssue, reportAttributeAccessIssue]

    def forward(self, x: Tensor) -> Tensor:
        current = self.a(x)
        if self.mode == "s":
            return torch.stack([self.out(self.fire(current)) for _ in range(4)])
        return self.out(self.fire(current.expand(4, *current.shape)))


@pytest.mark.skipif(not hasattr(neuron, "PSN"), reason="this version has no PSN")
@pytest.mark.parametrize("mode", ["s", "m"])
@pytest.mark.parametrize("name", WINDOWS)
def test_what_a_parallel_neuron_looks_back_on_is_weighed_and_kept(name: str, mode: str) -> None:
    make, products, kept = WINDOWS[name]
    fire = make()
    if mode == "s" and (name == "PSN" or "open" in name):
        pytest.skip("the library runs it in mode m alone")
    x, y = torch.rand(5, 6, generator=torch.Generator().manual_seed(0)), torch.arange(5) % 3
    model = Modes(fire, mode).eval()
    with torch.no_grad():
        spikes = float((model(x) - model.out.bias).abs().sum())
    cost = measure_cost(model, (x, y))
    found = next(item for item in cost.synapses if item.name == "fire")
    assert spikes > 0
    assert (found.synops.mean, found.macs_once, found.macs_every_step) == (0, 8 * products, 8 * products)
    assert cost.memory.state_bits == 8 * kept * 32
    assert cost.left_out == ()
    parameters = sum(item.numel() for item in model.parameters())
    assert cost.memory.weight_bits >= 32 * parameters
    assert cost.memory.weight_bits <= 32 * (parameters + 1)


@pytest.mark.skipif(not hasattr(neuron, "PSN"), reason="this version's GatedLIFNode is unknown")
def test_a_neuron_that_moves_the_axis_of_images_is_told() -> None:
    class Gated(nn.Module):
        def __init__(self, layer: nn.Module, into: int) -> None:
            super().__init__()
            self.a, self.fire, self.out = layer, neuron.GatedLIFNode(T=4), nn.Linear(into, 3)
            nn.init.normal_(layer.weight, 0, 3)  # pyright: ignore[reportArgumentType]

        def forward(self, x: Tensor) -> Tensor:
            current = self.a(x)
            spikes = self.fire(current.expand(4, *current.shape))
            return self.out(spikes.flatten(2) if current.ndim == 4 else spikes)

    torch.manual_seed(0)
    y = torch.arange(5) % 3
    maps = measure_cost(Gated(nn.Conv2d(1, 2, 3), 8).eval(), (torch.rand(5, 1, 4, 4), y))
    assert maps.memory.state_bits == 8 * 32
    with pytest.raises(ModelError, match=r"'fire' give \[4, 1, 1, \d, 8\] for currents \[4, \d, 8\].*maps"):
        measure_cost(Gated(nn.Linear(6, 8), 8).eval(), (torch.rand(5, 6), y))
