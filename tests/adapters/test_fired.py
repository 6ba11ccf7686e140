"""Neurons that give their spikes elsewhere than first, in what their adapter knows to read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest
import torch
from tests.bare import BareAdapter
from torch import Tensor, nn

import isofire
from isofire.adapters import Fired, register, unregister
from isofire.errors import ModelError
from isofire.firing.cost import measure_cost

T = 5
IMAGES = torch.rand(10, 8, generator=torch.Generator().manual_seed(0)) * 4


class Given(NamedTuple):
    z: Tensor
    v: Tensor


Arrange = Callable[[Tensor, Tensor], Any]
WAYS: dict[str, tuple[Arrange, Callable[[Any], Tensor]]] = {
    "first of a tuple": (lambda z, v: (z, v), lambda output: output[0]),
    "first of a list": (lambda z, v: [z, v], lambda output: output[0]),
    "a named tuple": (Given, lambda output: output.z),
    "second": (lambda z, v: (v, z), lambda output: output[1]),
    "a dictionary": (lambda z, v: {"v": v, "z": z}, lambda output: output["z"]),
    "deep inside": (lambda z, v: {"states": [v, v * 2], "out": (v, {"z": z})}, lambda output: output["out"][1]["z"]),
    "scaled": (lambda z, v: (v, 2.0 * z), lambda output: output[1] / 2),
}


class Neuron(nn.Module):
    def __init__(self, arrange: Arrange, read: Callable[[Any], Tensor]) -> None:
        super().__init__()
        self.arrange, self.read, self.v = arrange, read, None

    def forward(self, x: Tensor) -> Any:
        v = x if self.v is None else 0.9 * self.v + x
        z = (v >= 1).float()
        self.v = v * (1 - z)
        return self.arrange(z, v)


class Reading(BareAdapter):
    def spikes(self, neuron: nn.Module, output: Any) -> Any:
        return neuron.read(output).unsqueeze(0)  # pyright: ignore[reportCallIssue]


class Net(nn.Module):
    def __init__(self, way: tuple[Arrange, Callable[[Any], Tensor]]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.a = nn.Linear(8, 16), Neuron(*way)
        self.second, self.b = nn.Linear(16, 12), Neuron(*way)
        self.last = nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        steps = []
        for _ in range(T):
            z = self.a.read(self.a(self.first(x)))
            steps.append(self.last(self.b.read(self.b(self.second(z)))))
        return torch.stack(steps)


def _rest(neuron: Neuron) -> None:
    neuron.v = None


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    register(Neuron, Reading(reset=_rest))
    yield
    unregister(Neuron)


@pytest.mark.parametrize("way", WAYS)
def test_spikes_are_counted_wherever_they_are(way: str) -> None:
    net, spikes = Net(WAYS[way]).eval(), [0.0, 0.0]
    v = w = torch.zeros(10, 12)
    u = torch.zeros(10, 16)
    with torch.no_grad():
        for _ in range(T):
            u = 0.9 * u + net.first(IMAGES)
            z = (u >= 1).float()
            w = 0.9 * v + net.second(z)
            u, y = u * (1 - z), (w >= 1).float()
            v = w * (1 - y)
            spikes = [spikes[0] + float(z.sum()), spikes[1] + float(y.sum())]
    found = measure_cost(net, [(IMAGES, torch.arange(10) % 3)])
    assert not found.left_out
    costs = {site.name: site for site in found.synapses}
    assert costs["second"].synops.mean == pytest.approx(12 * spikes[0] / 10)
    assert costs["last"].synops.mean == pytest.approx(3 * spikes[1] / 10)
    assert (costs["first"].macs_once, costs["first"].macs_every_step) == (8 * 16, 8 * 16 * T)
    comparison = isofire.compare(net, net, [(IMAGES, torch.arange(10) % 3)])
    assert comparison.agreement == 1


def test_what_they_are_is_replaced_where_it_was() -> None:
    z, v = torch.eye(3), torch.rand(3, 3)
    neuron = Neuron(*WAYS["deep inside"])
    fired = Fired(neuron, Reading(), neuron.arrange(z, v))
    other = fired.with_values(torch.ones(3, 3))
    assert torch.equal(other["out"][1]["z"], torch.ones(3, 3))
    assert other["states"][0] is v
    assert fired.output["out"][1]["z"] is z


def test_spikes_of_no_tensor_are_refused() -> None:
    neuron = Neuron(lambda z, v: (z, v), lambda output: torch.zeros(3, 3))
    with pytest.raises(ModelError, match=r"spikes in a tensor, .*; Neuron gives tuple, of which its adapter makes"):
        Fired(neuron, Reading(), (torch.ones(3, 3), torch.ones(3, 3)))
