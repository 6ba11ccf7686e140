"""Biases that networks take other ways to their neurons than channel by channel."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from isofire.neurons import LIF
from isofire.quantization import repair_
from isofire.quantization.by_firing.fired import firing_of

STEPS, IMAGES = 6, 150


class Net(nn.Module):
    """A layer whose outputs `way` brings to its neurons, all steps at once or one after the other."""

    def __init__(self, layer: nn.Module, way: Callable[[Tensor], Tensor], stepped: bool) -> None:
        super().__init__()
        self.layer, self.way, self.stepped = layer, way, stepped
        self.neuron = LIF()
        if stepped:
            self.neuron = pytest.importorskip("spikingjelly.activation_based.neuron").LIFNode(step_mode="s")

    def forward(self, x: Tensor) -> Tensor:
        # [N, T, ...] of other currents in each step
        steps = x.transpose(0, 1)
        if self.stepped:
            return torch.stack([self.neuron(self.way(self.layer(step))) for step in steps])
        currents = self.way(self.layer(steps.flatten(0, 1)))
        return self.neuron(currents.unflatten(0, steps.shape[:2]))


def shuffled(x: Tensor) -> Tensor:
    return x.unflatten(1, (2, -1)).transpose(1, 2).flatten(1, 2)


def conv(outputs: int) -> nn.Module:
    return nn.Conv2d(2, outputs, 3, padding=1)


WAYS: dict[str, tuple[nn.Module, Callable[[Tensor], Tensor], tuple[int, ...]]] = {
    "as they are": (conv(6), lambda x: x, (2, 4, 4)),
    "shuffled": (conv(6), shuffled, (2, 4, 4)),
    "flipped": (conv(6), lambda x: x.flip(1), (2, 4, 4)),
    "rolled": (conv(6), lambda x: x.roll(1, 1), (2, 4, 4)),
    "more channels than biases": (conv(6), lambda x: nn.functional.pixel_unshuffle(x, 2), (2, 4, 4)),
    "fewer channels than biases": (conv(8), lambda x: nn.functional.pixel_shuffle(x, 2), (2, 4, 4)),
    "a linear layer's outputs as maps": (nn.Linear(5, 12), lambda x: x.view(-1, 3, 2, 2), (5,)),
    "as many tokens as outputs": (nn.Linear(5, 6), lambda x: x, (6, 5)),
    "fewer tokens than outputs": (nn.Linear(5, 6), lambda x: x, (4, 5)),
    "channels last": (nn.Linear(2, 6), lambda x: x, (4, 4, 2)),
    "tokens behind channels": (nn.Linear(5, 6), lambda x: x.transpose(1, 2), (6, 5)),
}


@pytest.mark.parametrize("stepped", [False, True])
@pytest.mark.parametrize("way", WAYS)
def test_biases_that_were_lost_are_found_where_they_were(way: str, stepped: bool) -> None:
    torch.manual_seed(0)
    layer, moved, sizes = WAYS[way]
    baseline = Net(copy.deepcopy(layer), moved, stepped).eval()
    images = torch.randn(IMAGES, STEPS, *sizes)
    with torch.no_grad():
        baseline.layer.weight.mul_(4)
        baseline.layer.bias.copy_(torch.linspace(0.0, 1.0, len(baseline.layer.bias)))
    model = copy.deepcopy(baseline)
    lost = torch.linspace(-0.4, 0.5, len(model.layer.bias))
    with torch.no_grad():
        model.layer.bias.sub_(lost)
    (finding,) = repair_(model, baseline, images)
    assert finding.note is None
    torch.testing.assert_close(model.layer.bias, baseline.layer.bias, atol=0.05, rtol=0)
    # what is told is what the network does
    now, full = (firing_of(net, [images]).counts["neuron"] for net in (model, baseline))
    drift = float((now - full).abs().double().mean()) / (IMAGES * STEPS)
    assert finding.drift_after == pytest.approx(drift, rel=1e-6)
    assert drift < 0.1 * finding.drift_before


@pytest.mark.parametrize(
    "way",
    [
        lambda x: torch.relu(x),
        lambda x: 2.0 * x,
        # the last output goes nowhere, the first twice
        lambda x: torch.cat([x[:, :1], x[:, :-1]], 1),
        lambda x: x + x.flip(1),
        # an image's channels in another order than the next one's
        lambda x: torch.stack([one.roll(place % 2, 0) for place, one in enumerate(x)]),
    ],
)
def test_a_bias_that_does_not_arrive_as_it_is_stays(way: Callable[[Tensor], Tensor]) -> None:
    torch.manual_seed(0)
    baseline = Net(nn.Linear(5, 6), way, stepped=False).eval()
    model = copy.deepcopy(baseline)
    with torch.no_grad():
        model.layer.weight.mul_(0.5)
    (finding,) = repair_(model, baseline, torch.randn(20, STEPS, 5) * 4)
    assert finding.note == "no bias of its own reaches this layer's currents"
    assert torch.equal(model.layer.bias, baseline.layer.bias)


class Branch(nn.Module):
    """Bright batches go another way to the same neurons."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.neuron = nn.Linear(5, 6), nn.Linear(5, 6), LIF(v_threshold=0.3)

    def forward(self, x: Tensor) -> Tensor:
        return self.neuron((self.a if x.mean() > 1 else self.b)(x).expand(STEPS, -1, -1))


@pytest.mark.parametrize("bright_first", [False, True])
def test_a_bias_that_some_batches_go_past_stays(bright_first: bool) -> None:
    baseline = Branch().eval()
    model = copy.deepcopy(baseline)
    with torch.no_grad():
        for layer in (model.a, model.b):
            layer.weight.mul_(0.7)
    dark = torch.rand(20, 5)
    batches = [(x, torch.zeros(20, dtype=torch.long)) for x in ((dark + 2, dark) if bright_first else (dark, dark + 2))]
    (finding,) = repair_(model, baseline, batches)
    assert finding.note == "no bias of its own reaches this layer's currents"
    assert finding.drift_before == finding.drift_after > 0
    assert torch.equal(model.a.bias, baseline.a.bias)
    assert torch.equal(model.b.bias, baseline.b.bias)
