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
