"""Quantized networks brought back."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import isofire
from isofire.errors import ModelError, SpecError
from isofire.neurons import IF, LIF, PerStep, Repeat
from isofire.quantization import repair_


def network(seed: int = 0, width: int = 24) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        Repeat(6), PerStep(nn.Linear(16, width)), LIF(), PerStep(nn.Linear(width, 20)), IF(), PerStep(nn.Linear(20, 4))
    ).eval()


def images() -> torch.Tensor:
    return torch.rand(120, 16, generator=torch.Generator().manual_seed(3)) * 4


@pytest.fixture
def broken() -> nn.Module:
    """Another tool's network, whose first layer was silenced."""
    model = network()
    with torch.no_grad():
        model[1][0].bias.sub_(6.0)  # type: ignore[index]
    return model


def test_a_silent_layer_is_found_and_brought_back(broken: nn.Module):
    first, second = repair_(broken, network(), images())
    assert (first.layer, first.rate_before, first.dead_before) == ("2", 0.0, 1.0)
    assert first.rate_after == pytest.approx(first.rate, rel=0.03)
    assert first.drift_after < 0.05 * first.drift_before
    # the layer behind it needs little once its inputs are back
    assert second.drift_after < 0.1 * second.drift_before
    assert "silent 100.0% ->" in str(first)
    # and on images that it did not see
    fresh = torch.rand(200, 16, generator=torch.Generator().manual_seed(4)) * 4
    found = isofire.compare(network(), broken, (fresh, torch.zeros(200, dtype=torch.long)))
    assert found.overall["paired_mae"] < 0.02


def test_weights_and_thresholds_stay(broken: nn.Module):
    before = copy.deepcopy(broken.state_dict())
    repair_(broken, network(), images())
    changed = {name for name, value in broken.state_dict().items() if not torch.equal(value, before[name])}
    assert changed <= {"1.0.bias", "3.0.bias"}


def test_a_network_without_drift_stays_as_it_is():
    model = network()
    before = copy.deepcopy(model.state_dict())
    for finding in repair_(model, network(), images()):
        assert finding.drift_before == finding.drift_after == 0.0
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_where_no_bias_reaches_a_layer_it_says_so():
    bare = nn.Sequential(Repeat(4), PerStep(nn.Linear(16, 8, bias=False)), LIF(), PerStep(nn.Linear(8, 4)))
    weaker = copy.deepcopy(bare)
    with torch.no_grad():
        weaker[1][0].weight.mul_(0.7)  # type: ignore[index]
    (finding,) = repair_(weaker, bare, images())
    assert finding.note == "no bias of its own reaches this layer's currents"
    assert finding.drift_before == finding.drift_after > 0


def test_networks_that_do_not_go_together_are_refused():
    with pytest.raises(ModelError, match="as many neurons"):
        repair_(network(width=12), network(), images())
    with pytest.raises(ModelError, match="same layers of neurons, one alone has: 4"):
        repair_(network()[:4], network(), images())
    with pytest.raises(SpecError, match="max_images must be at least 1, got 0"):
        repair_(network(), network(), images(), max_images=0)


def test_biases_that_are_quantized_themselves_stay_and_are_named():
    spec = isofire.QuantSpec(
        weights={"method": "uniform", "bits": 2},
        first_layer="quantize",
        rules=[{"match": "3.0", "biases": {"method": "fixed", "bits": 6, "fraction": 3}}],
    )
    model = isofire.quantize_(network(), spec, images())
    before = copy.deepcopy(model.state_dict())
    first, second = repair_(model, network(), images())
    assert first.note is None
    assert second.note == "the bias that reaches this layer's currents is quantized itself"
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"1.0.bias"}


class Skip(nn.Module):
    """The first layer's currents feed its neurons and, through other weights, the neurons behind those too."""

    def __init__(self, joined: bool):
        super().__init__()
        torch.manual_seed(3)
        self.a, self.n = nn.Linear(16, 24), LIF(v_threshold=0.4)
        self.b, self.k = nn.Linear(24, 20, bias=False), nn.Linear(24, 20, bias=False)
        self.m, self.out, self.joined = LIF(v_threshold=0.3), nn.Linear(20, 4), joined

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        currents = self.a(x).expand(6, -1, -1)
        behind = self.b(self.n(currents))
        return self.out(self.m(behind + self.k(currents) if self.joined else behind))


@pytest.mark.parametrize("joined", [False, True])
def test_a_bias_that_reaches_other_neurons_too_stays(joined: bool):
    model, baseline = Skip(joined).eval(), Skip(joined).eval()
    with torch.no_grad():
        model.a.weight.mul_(0.8)
    before = model.a.bias.detach().clone()
    first, _ = repair_(model, baseline, images())
    assert torch.equal(model.a.bias, before) == joined
    assert (first.note == "no bias of its own reaches this layer's currents") == joined


def test_neurons_without_a_threshold_are_named():
    neuron = pytest.importorskip("spikingjelly.activation_based.neuron")

    def made() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(Repeat(6), nn.Linear(16, 24), neuron.PSN(T=6), nn.Linear(24, 4)).eval()

    spec = isofire.QuantSpec(weights={"method": "gptq", "bits": 3}, correct="bias", first_layer="quantize")
    with pytest.raises(ModelError, match=r"'2' \(PSN\) has no threshold .*correct = 'never'"):
        isofire.quantize_(made(), spec, images())
    with pytest.raises(ModelError, match=r"'2' \(PSN\) has no threshold"):
        repair_(made(), made(), images())
