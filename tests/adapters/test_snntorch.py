"""What snnTorch's neurons refuse beyond the contract."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from isofire import QuantSpec
from isofire.adapters import adapter_of
from isofire.errors import ModelError, SpecError
from isofire.firing import compare
from isofire.firing.cost import measure_cost
from isofire.neurons import MembraneQuantizer
from isofire.quantization import prepare_
from isofire.quantizers import MEMBRANES, NeuronFacts
from isofire.training import evaluate

snntorch: Any = pytest.importorskip("snntorch", reason="snntorch is not installed", exc_type=ImportError)


def test_a_neuron_that_resets_at_the_next_step_stores_no_state_after_its_reset() -> None:
    spec = QuantSpec(membrane={"bits": 4, "range": [-2, 2], "placement": "post_reset"})
    with pytest.raises(ModelError, match="'0' cannot be quantized at post_reset: the neuron resets at the next step"):
        prepare_(nn.Sequential(snntorch.Leaky(beta=0.5, init_hidden=True)), spec)
    prepare_(nn.Sequential(snntorch.Leaky(beta=0.5, init_hidden=True, reset_delay=False)), spec)


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 6, 8])
@pytest.mark.parametrize("threshold", [1.0, 0.3, 5.0])
@pytest.mark.parametrize(
    ("spacing", "options"),
    [("uniform", {}), ("threshold", {"uniform": False}), ("zero", {"uniform": False, "thr_centered": False})],
)
@pytest.mark.parametrize("limits", [{}, {"lower": 0.5, "upper": 0.4}, {"lower": -0.2}, {"ratio": 0.9}])
def test_squat_is_snntorchs_state_quant(
    bits: int, threshold: float, spacing: str, options: dict[str, bool], limits: dict[str, float]
) -> None:
    from snntorch.functional import quant

    theirs = {"lower": "lower_limit", "upper": "upper_limit", "ratio": "multiplier"}
    named = {theirs[name]: value for name, value in limits.items()}
    reference = quant.state_quant(num_bits=bits, threshold=threshold, **options, **named)
    if (bits, spacing) == (8, "threshold") and "ratio" in limits:
        # 0.9^128 beside the threshold is nothing in float32
        with pytest.raises(SpecError, match="coincide"):
            MEMBRANES["squat"](bits=bits, spacing=spacing, **limits)
        return
    setting = MEMBRANES["squat"](bits=bits, spacing=spacing, **limits)
    quantizer = setting.build_for(1, NeuronFacts(thresholds=(threshold,), fires_at_threshold=False))
    v = torch.randn(2000, generator=torch.Generator().manual_seed(0)) * threshold * 1.2
    x, y = v.clone().requires_grad_(), v.clone().requires_grad_()
    found, wanted = quantizer(x), reference(y)
    # a potential within rounding of the middle of two levels may go either way
    assert float(((found - wanted).abs() > 1e-5 * threshold).float().mean()) < 2e-3
    (found * v).sum().backward()
    (wanted * v).sum().backward()
    assert torch.equal(x.grad, y.grad)


def test_a_network_with_squat_is_one_with_state_quant() -> None:
    from snntorch.functional import quant

    torch.manual_seed(0)
    x = torch.randn(6, 16, 7)
    theirs = snntorch.Leaky(beta=0.7, threshold=0.8, state_quant=quant.state_quant(num_bits=3, threshold=0.8))
    ours = snntorch.Leaky(beta=0.7, threshold=0.8)
    adapter = adapter_of(ours)
    assert adapter is not None
    quantizer = MEMBRANES["squat"](bits=3).build_for(1, adapter.facts(ours))
    adapter.attach(ours, MembraneQuantizer(quantizer, "pre_fire"))
    spikes = []
    for neuron in (theirs, ours):
        membrane, own = neuron.init_leaky(), []
        for current in x:
            spike, membrane = neuron(current, membrane)
            own.append(spike)
        spikes.append(torch.stack(own))
    assert 0.05 < float(spikes[0].mean()) < 0.9
    assert torch.equal(*spikes)


class Looped(nn.Module):
    """Steps of a network of snnTorch's, and what it makes of the spikes of all."""

    def __init__(self, steps: int, classes: int, give: Any, factor: Any = 1.0) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.fc1, self.head, self.steps, self.give = nn.Linear(6, 9), nn.Linear(9, classes), steps, give
        self.lif = snntorch.Leaky(beta=0.7, graded_spikes_factor=factor)
        self.heads = nn.ModuleList(nn.Linear(9, classes) for _ in range(steps))
        with torch.no_grad():
            self.fc1.weight.mul_(4)

    def forward(self, x: torch.Tensor) -> Any:
        membrane, spikes = self.lif.reset_mem(), []
        for _ in range(self.steps):
            fired, membrane = self.lif(self.fc1(x), membrane)
            spikes.append(fired)
        return self.give(self, spikes)


IMAGES = 2 * torch.rand(16, 6, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("factor", [1.0, 2.0])
@pytest.mark.parametrize("classes", [3, 5])
def test_what_a_network_returns_is_told_by_its_steps(classes: int, factor: float) -> None:
    """Spikes were turned in a copy, so that nothing was seen to change: stacked exits were read as steps."""

    def exits(net: Looped, spikes: list[torch.Tensor]) -> torch.Tensor:
        return torch.stack([head(torch.stack(spikes).mean(0)) for head in net.heads])

    def steps(net: Looped, spikes: list[torch.Tensor]) -> torch.Tensor:
        return torch.stack([net.head(fired) for fired in spikes])

    labels = torch.arange(16) % classes
    with pytest.raises(ModelError, match=r"as exits do|steps are not where they belong"):
        evaluate(Looped(5, classes, exits, factor), (IMAGES, labels))
    net = Looped(5, classes, steps, factor)
    expected = float((net(IMAGES).mean(0).argmax(1) == labels).float().mean())
    assert evaluate(net, (IMAGES, labels)).accuracy == pytest.approx(expected)
    listed = Looped(5, classes, lambda net, spikes: [net.head(fired) for fired in spikes], factor)
    assert evaluate(listed, (IMAGES, labels)).accuracy == pytest.approx(expected)


HEIGHTS = {
    "of real numbers, below 1": torch.linspace(0.2, 0.9, 9),
    "of real numbers": torch.linspace(0.54, 1.49, 9),
    "far apart": torch.tensor([0.7, 2.3, 0.7, 2.3, 0.7, 2.3, 0.7, 2.3, 0.7]),
    "whole": torch.tensor([1.0, 2, 3, 1, 2, 3, 1, 2, 3]),
    "whole but for one": torch.tensor([1.0, 2, 3, 1, 2, 3, 1, 2, 0.5]),
}


@pytest.mark.parametrize("name", HEIGHTS)
def test_neurons_of_a_layer_have_heights_of_their_own(name: str) -> None:
    """All were taken for the first one's: a spike of twice its height was two events."""
    heights = HEIGHTS[name]

    def steps(net: Looped, spikes: list[torch.Tensor]) -> torch.Tensor:
        net.seen = torch.stack(spikes)
        return torch.stack([net.head(fired) for fired in spikes])

    net = Looped(5, 3, steps, heights)
    with torch.no_grad():
        net(IMAGES)
    fired = (net.seen != 0).double().sum((0, 1)) / len(IMAGES)
    # a whole number v is v events (docs/cost.md), where all of a layer are
    events = fired * heights.double() if bool((heights == heights.round()).all()) else fired
    cost = measure_cost(net.eval(), (IMAGES, torch.arange(16) % 3))
    assert cost.spikes.mean == pytest.approx(float(fired.sum()))
    assert cost.synops.mean == pytest.approx(3 * float(events.sum()))
    drift = compare(net, net, (IMAGES, torch.arange(16) % 3)).synops
    assert drift is not None
    assert not drift.left_out
    assert sum(layer.baseline for layer in drift.layers.values()) == pytest.approx(3 * float(events.sum()))
