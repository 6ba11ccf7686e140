"""Spikes of any height, behind factors, offsets and norms that fold into weights: each costs the same, whatever others
are in the same step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from tests.bare import BareAdapter
from torch import Tensor, nn

import isofire
from isofire.adapters import Layout, register, unregister
from isofire.firing.cost import measure_cost

T, IMAGES = 4, 10
LABELS = torch.arange(IMAGES) % 3


class Neuron(nn.Module):
    """Fires above 1, and below -1 where both signs are asked for."""

    def __init__(self, height: float, both: bool) -> None:
        super().__init__()
        self.height, self.both = height, both

    def forward(self, x: Tensor) -> Tensor:
        below = (x <= -1).float() if self.both else 0.0
        return self.height * ((x >= 1).float() - below)


class Scaled(BareAdapter):
    def spikes(self, neuron: nn.Module, output: Any) -> Any:
        return super().spikes(neuron, output) / neuron.height


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    register(Neuron, Scaled())
    yield
    unregister(Neuron)


def _norm() -> nn.Module:
    norm = nn.BatchNorm1d(16).eval()
    assert norm.running_mean is not None
    norm.running_mean.copy_(torch.linspace(-1, 1, 16))
    return norm


BEHIND: dict[str, Callable[[], Callable[[Tensor], Tensor]]] = {
    "nothing": lambda: lambda z: z,
    "a half": lambda: lambda z: 0.5 * z,
    "an offset": lambda: lambda z: z + 1,
    "a norm": _norm,
}


class Net(nn.Module):
    """Steps, the first of them silent, go on one by one, stacked, or written into a buffer."""

    def __init__(self, height: float, both: bool, behind: str, how: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.fire, self.last = nn.Linear(12, 16), Neuron(height, both), nn.Linear(16, 3)
        self.behind, self.how = BEHIND[behind](), how

    def forward(self, x: Tensor) -> Tensor:
        current, steps = self.first(x), []
        for step in range(T):
            steps.append(self.fire(current * step))
        if self.how == "one by one":
            return torch.stack([self.last(self.behind(z)) for z in steps])
        if self.how == "stacked":
            spikes = torch.stack(steps)
        else:
            spikes = torch.zeros(T, len(x), 16)
            for step, z in enumerate(steps):
                spikes[step] = z
        return self.last(self.behind(spikes.flatten(0, 1))).unflatten(0, (T, len(x)))


@pytest.mark.parametrize("behind", BEHIND)
@pytest.mark.parametrize("how", ["one by one", "stacked", "a buffer"])
@pytest.mark.parametrize("height", [1.0, 2.0, 0.5, -1.0, -2.0])
@pytest.mark.parametrize("both", [False, True])
def test_each_spike_costs_the_same(behind: str, how: str, height: float, both: bool) -> None:
    net = Net(height, both, behind, how).eval()
    images = torch.rand(IMAGES, 12, generator=torch.Generator().manual_seed(3)) * 3
    spikes: list[Tensor] = []
    hook = net.fire.register_forward_hook(lambda _module, _given, output: spikes.append(output))
    with torch.no_grad():
        net(images)
    hook.remove()
    fired = sum(float((z != 0).sum()) for z in spikes) / IMAGES
    assert not both or any(bool((z < 0).any()) and bool((z > 0).any()) for z in spikes)
    # a whole height is as many events, until it folds into the weights
    due = 3 * fired * (abs(height) if behind == "nothing" and abs(height) == 2 else 1)
    found = measure_cost(net, (images, LABELS))
    last = next(site for site in found.synapses if site.name == "last")
    assert (last.synops.mean, last.macs_every_step) == (pytest.approx(due), 0)
    if not both:
        compared = isofire.compare(net, net, (images, LABELS)).to_dict()["synops"]["overall"]
        assert compared["baseline"] == pytest.approx(due)


class Mixed(nn.Module):
    """Neurons of heights of their own."""

    def __init__(self, heights: list[float]) -> None:
        super().__init__()
        self.height = torch.tensor(heights * (16 // len(heights)))

    def forward(self, x: Tensor) -> Tensor:
        return self.height * (x >= 1).float()


@pytest.mark.parametrize("behind", BEHIND)
@pytest.mark.parametrize("how", ["one by one", "stacked", "a buffer"])
@pytest.mark.parametrize("heights", [[1.0, -1.0], [2.0, -2.0], [1.0, -2.0], [0.5, 1.0]])
def test_each_spike_of_a_layer_of_several_heights_costs_the_same(behind: str, how: str, heights: list[float]) -> None:
    register(Mixed, Scaled())
    try:
        net = Net(1.0, False, behind, how).eval()
        net.fire = Mixed(heights)
        images = torch.rand(IMAGES, 12, generator=torch.Generator().manual_seed(3)) * 3
        found = measure_cost(net, (images, LABELS))
        compared = isofire.compare(net, net, (images, LABELS)).to_dict()["synops"]["overall"]
    finally:
        unregister(Mixed)
    # of one size as much as that, of several one event each
    size = 2 if behind == "nothing" and heights == [2.0, -2.0] else 1
    (neurons,) = found.neurons
    last = next(site for site in found.synapses if site.name == "last")
    assert neurons.spikes.mean > 0
    assert (last.synops.mean, last.macs_every_step) == (pytest.approx(3 * size * neurons.spikes.mean), 0)
    assert compared["baseline"] == pytest.approx(last.synops.mean)


class Pooled(Net):
    """Spikes of all steps are added up, or averaged, before weights see them."""

    def __init__(self, mean: bool) -> None:
        super().__init__(1.0, False, "nothing", "one by one")
        self.mean = mean

    def forward(self, x: Tensor) -> Tensor:
        current = self.first(x)
        total = sum(self.fire(current * step) for step in range(T))
        return self.last(total / T if self.mean else total)


@pytest.mark.parametrize("mean", [False, True])
@pytest.mark.parametrize("heights", [[1.0, -1.0], [-1.0], [1.0]])
def test_spikes_of_several_steps_are_events_where_one_step_is_silent(mean: bool, heights: list[float]) -> None:
    register(Mixed, Scaled())
    try:
        net = Pooled(mean).eval()
        net.fire = Mixed(heights)
        found = measure_cost(net, (torch.rand(IMAGES, 12, generator=torch.Generator().manual_seed(3)) * 3, LABELS))
    finally:
        unregister(Mixed)
    (neurons,) = found.neurons
    last = next(site for site in found.synapses if site.name == "last")
    assert neurons.spikes.mean > 0
    assert (last.synops.mean, last.macs_every_step) == (pytest.approx(3 * neurons.spikes.mean), 0)


class Recurrent(nn.Module):
    """Takes all steps, and feeds its spikes back to itself through weights before it gives them."""

    def __init__(self, both: bool) -> None:
        super().__init__()
        self.back, self.height, self.both, self.fed = nn.Linear(16, 10, bias=False), 1.0, both, 0.0
        self.into = nn.Linear(10, 16, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        z, steps, self.fed = torch.zeros_like(x[0]), [], 0.0
        for current in x:
            self.fed += float((z != 0).sum())
            v = current + self.into(torch.tanh(self.back(z)))
            z = (v >= 1).float() - (v <= -1).float() if self.both else -(v >= 1).float()
            steps.append(z)
        return torch.stack(steps)


class Whole(BareAdapter):
    def __init__(self, sign: float) -> None:
        super().__init__()
        self.sign = sign

    def layout(self, neuron: nn.Module) -> Layout:
        return Layout.TIME_FIRST

    def spikes(self, neuron: nn.Module, output: Any) -> Any:
        return output * self.sign


@pytest.mark.parametrize("both", [False, True])
def test_spikes_below_0_that_a_neuron_feeds_back_to_itself_are_events(both: bool) -> None:
    class Loop(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(1)
            self.first, self.own, self.last = nn.Linear(12, 16), Recurrent(both), nn.Linear(16, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.own(3 * self.first(x).expand(T, -1, -1)))

    register(Recurrent, Whole(sign=1.0 if both else -1.0))
    try:
        net, images = Loop().eval(), torch.rand(IMAGES, 12, generator=torch.Generator().manual_seed(3)) * 3
        with torch.no_grad():
            net(images)
        fed = net.own.fed
        found = measure_cost(net, (images, LABELS))
    finally:
        unregister(Recurrent)
    back = next(site for site in found.synapses if site.name == "own.back")
    assert fed > 0
    assert (back.synops.mean, back.macs_every_step) == (pytest.approx(10 * fed / IMAGES), 0)
