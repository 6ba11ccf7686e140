"""Weights that are no parameters (reservoirs, random projections) are stored and counted like any other."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import prune

from isofire.adapters import Adapter, Layout, register, unregister
from isofire.firing.cost import measure_cost
from isofire.neurons import LIF

DATA = torch.rand(6, 5, generator=torch.Generator().manual_seed(0)) * 3, torch.arange(6) % 3
STEPS, INPUTS, HIDDEN, CLASSES = 4, 5, 20, 3
HEAD = 32 * (HIDDEN * CLASSES + CLASSES)


class Reservoir(nn.Module):
    """Only the readout is learned."""

    def __init__(self, hold: Callable[[Tensor], object], multiply: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.into, self.back, self.multiply = (
            hold(torch.randn(HIDDEN, INPUTS)),
            hold(torch.randn(HIDDEN, HIDDEN)),
            multiply,
        )
        self.one, self.two, self.head = LIF(), LIF(), nn.Linear(HIDDEN, CLASSES)
        self.spikes = 0.0

    def forward(self, x: Tensor) -> Tensor:
        into, back = (held[0] if isinstance(held, list) else held for held in (self.into, self.back))
        spikes = self.one((x @ into.t()).expand(STEPS, -1, -1))
        self.spikes = float(spikes.sum()) / len(x)
        return self.head(self.two(self.multiply(spikes, back)))


HOLDS: dict[str, Callable[[Tensor], object]] = {
    "buffer": nn.Buffer,
    "tensor": lambda x: x,
    "list": lambda x: [x],
    "list of parameters": lambda x: [nn.Parameter(x)],
    "parameter": nn.Parameter,
}
PRODUCTS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "@": lambda spikes, weight: spikes @ weight.t(),
    "by hand": lambda spikes, weight: (spikes.unsqueeze(-2) * weight).sum(-1),
    "made anew": lambda spikes, weight: spikes @ (weight * 0.5).t(),
}


@pytest.mark.parametrize("hold", HOLDS)
@pytest.mark.parametrize("product", PRODUCTS)
def test_a_reservoir_is_stored_and_counted(hold: str, product: str) -> None:
    torch.manual_seed(0)
    model = Reservoir(HOLDS[hold], PRODUCTS[product]).eval()
    with torch.no_grad():
        model(DATA[0])
    spikes = model.spikes
    cost = measure_cost(model, DATA)
    assert spikes > 0
    assert cost.left_out == ()
    assert cost.memory.weight_bits == 32 * HIDDEN * (INPUTS + HIDDEN) + HEAD
    assert cost.synapses[1].synops.mean == pytest.approx(spikes * HIDDEN)
    assert cost.energy().weights > 0


def test_a_mask_is_no_weight() -> None:
    model = nn.Sequential(nn.Linear(INPUTS, HIDDEN), LIF(), nn.Linear(HIDDEN, CLASSES)).eval()
    prune.l1_unstructured(model[2], "weight", 0.5)
    before = 32 * HIDDEN * (INPUTS + 1) + HEAD
    assert measure_cost(model, (DATA[0].expand(STEPS, -1, -1), DATA[1])).memory.weight_bits == before


class FirstInside(nn.Module):
    """A neuron that holds the weights of its inputs and of its own spikes."""

    def __init__(self) -> None:
        super().__init__()
        self.into, self.back = nn.Linear(INPUTS, HIDDEN, bias=False), nn.Linear(HIDDEN, HIDDEN, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        v, spikes = torch.zeros(x.shape[1], HIDDEN), [torch.zeros(x.shape[1], HIDDEN)]
        for step in x:
            v = 0.5 * v + self.into(step) + self.back(spikes[-1])
            spikes.append((v > 0.4).float())
            v = v * (1 - spikes[-1])
        return torch.stack(spikes[1:])


class OfFirstInside(Adapter):
    def layout(self, neuron: nn.Module) -> Layout:
        return Layout.TIME_FIRST

    def threshold(self, neuron: nn.Module) -> Tensor:
        return torch.tensor(0.4)

    def host(self, neuron: nn.Module) -> type:
        raise NotImplementedError


def test_a_static_image_may_be_worked_on_once_inside_a_neuron_too() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fire, self.head, self.spikes = FirstInside(), nn.Linear(HIDDEN, CLASSES), 0.0

        def forward(self, x: Tensor) -> Tensor:
            spikes = self.fire(x.expand(STEPS, -1, -1))
            self.spikes = float(spikes[:-1].sum()) / x.shape[0]
            return self.head(spikes)

    register(FirstInside, OfFirstInside())
    try:
        torch.manual_seed(0)
        model = Net().eval()
        with torch.no_grad():
            model(DATA[0])
        spikes = model.spikes
        into, back, _ = measure_cost(model, DATA).synapses
    finally:
        unregister(FirstInside)
    assert spikes > 0
    assert (into.macs_once, into.macs_every_step) == (INPUTS * HIDDEN, STEPS * INPUTS * HIDDEN)
    assert (into.synops.mean, back.synops.mean, back.macs_once) == (0, pytest.approx(spikes * HIDDEN), 0)
