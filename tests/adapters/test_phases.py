"""Layers in turn before one neuron are refused however their weights are used; phases of a network are steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tests.adapters.stepping import Step, registered  # noqa: F401
from torch import Tensor, nn
from torch.nn import functional as F

from isofire.errors import ModelError
from isofire.firing import observe
from isofire.firing.cost import measure_cost

T = 4
GIVEN = torch.rand(8, 6, generator=torch.Generator().manual_seed(0)), torch.arange(8) % 3


class InTurn(nn.Module):
    """One neuron behind two layers in turn, on one line."""

    def __init__(self, way: Callable[[Any, Tensor, int], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.w = nn.ParameterList(torch.rand(6, 6) for _ in range(2))
        self.k = nn.ParameterList(torch.rand(1, 1, 5) for _ in range(2))
        self.stacked = nn.Parameter(torch.rand(2, 6, 6))
        self.table = nn.ParameterList(torch.rand(2, 6) for _ in range(2))
        self.masks = [(torch.rand(6, 6) > 0.5).float() for _ in range(2)]
        self.a, self.b, self.place = nn.Linear(6, 6), nn.Linear(6, 6), nn.Parameter(torch.rand(2, 6))
        self.way, self.n, self.out = way, Step(), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        steps = []
        for _ in range(T):
            y = x
            for i in range(2):
                y = self.n(self.way(self, y, i))
            steps.append(self.out(y))
        return torch.stack(steps)


def offset_and_mean(net: InTurn, y: Tensor, i: int) -> Tensor:
    return (F.linear(y, net.w[i])[:, None] + net.place).mean(1)


def tied(net: InTurn, y: Tensor, i: int) -> Tensor:
    return net.b(net.a(y)) if i else net.a(y)


IN_TURN: dict[str, Callable[[Any, Tensor, int], Tensor]] = {
    "a mask that is not registered": lambda net, y, i: F.linear(y, net.w[i] * net.masks[i]),
    "what the input adds": lambda net, y, i: F.linear(y, net.w[i] + 0.01 * torch.outer(y[0], y[0])),
    "numpy": lambda net, y, i: F.linear(y, torch.from_numpy(net.w[i].detach().numpy())),
    "five numbers along one axis": lambda net, y, i: F.conv1d(y[:, None], net.k[i], padding=2)[:, 0],
    "unfolded": lambda net, y, i: F.pad(y, (2, 2)).unfold(1, 5, 1) @ net.k[i].flatten(),
    "least sums": lambda net, y, i: (y[:, None] + net.w[i]).amin(-1),
    "one of a stack": lambda net, y, i: F.linear(y, torch.stack(list(net.w))[i]),
    "part of a parameter": lambda net, y, i: F.linear(y, net.stacked[i]),
    "in double precision": lambda net, y, i: F.linear(y.double(), net.w[i].double()).float(),
    "looked up": lambda net, y, i: F.embedding(y.sum(1).long().clamp(0, 1), net.table[i]),
    "an offset in common and a mean": offset_and_mean,
    "one layer of two is used twice": tied,
}


@pytest.mark.parametrize("way", IN_TURN)
def test_layers_in_turn_are_places_however_their_weights_are_used(way: str) -> None:
    for measured in (observe, measure_cost):
        with pytest.raises(ModelError, match=r"'n' sees single steps and was called at 2 places|beside other images"):
            measured(InTurn(IN_TURN[way]).eval(), GIVEN)


class Phases(nn.Module):
    """One neuron at one place; what comes before it changes with the step."""

    def __init__(self, way: Callable[[Any, Tensor, Tensor, int], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.m, self.out = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 3)
        self.rec = nn.Parameter(torch.rand(6, 6) * 0.1)
        self.g = nn.ParameterList(torch.rand(2, 3) for _ in range(2))
        self.register_buffer("first", torch.randperm(6).view(2, 3))
        self.register_buffer("second", torch.randperm(6).view(2, 3))
        self.way, self.n = way, Step()

    def forward(self, x: Tensor) -> Tensor:
        steps, y = [], torch.zeros(len(x), 6)
        for step in range(T):
            y = self.n(self.way(self, x, y, step))
            steps.append(self.out(y))
        return torch.stack(steps)

    def order(self, step: int) -> Tensor:
        return (self.first, self.second)[step % 2]


def lateral(net: Phases, x: Tensor, y: Tensor, step: int) -> Tensor:
    return net.a(x) + y @ net.rec if step % 2 else net.a(x)


def lateral_module(net: Phases, x: Tensor, y: Tensor, step: int) -> Tensor:
    return net.a(x) + net.m(y) if step % 2 else net.a(x)


def stimulus(net: Phases, x: Tensor, y: Tensor, step: int) -> Tensor:
    return y @ net.rec + net.a(x) if step < T // 2 else y @ net.rec


def delay(net: Phases, x: Tensor, y: Tensor, step: int) -> Tensor:
    return net.a(x) if step < T // 2 else y @ net.rec


def delay_module(net: Phases, x: Tensor, y: Tensor, step: int) -> Tensor:
    return net.a(x) if step < T // 2 else net.m(y)


def own_then_stimulus(net: Phases, x: Tensor, y: Tensor, step: int) -> Tensor:
    return net.m(y) if step < T // 2 else net.a(x)


def silenced(net: Phases, x: Tensor, y: Tensor, step: int) -> Tensor:
    z = net.a(x).clone()
    z[:, (net.g[step % 2] > 0.5).flatten()] = 0
    return z


PHASES: dict[str, Callable[[Any, Tensor, Tensor, int], Tensor]] = {
    "recurrent every other step": lateral,
    "by modules": lateral_module,
    "a stimulus in the first half": stimulus,
    "a stimulus, then a delay": delay,
    "by modules, then a delay": delay_module,
    "a stimulus in the second half": own_then_stimulus,
    "a mask that silences": silenced,
    "factors of a norm": lambda net, x, y, step: F.layer_norm(net.a(x).view(-1, 2, 3), (2, 3), net.g[step % 2]).flatten(
        1
    ),
    "an order": lambda net, x, y, step: net.a(x)[:, net.order(step).flatten()],
    "gathered": lambda net, x, y, step: net.a(x).gather(1, net.order(step).view(1, 6).expand(len(x), 6)),
    "a condition": lambda net, x, y, step: torch.where((net.g[step % 2] > 0.5).flatten(), net.a(x), 0),
    "a gain that spreads": lambda net, x, y, step: (
        net.a(x).view(-1, 2, 3).mean(2, keepdim=True) * net.g[step % 2]
    ).flatten(1),
    "put beside": lambda net, x, y, step: torch.cat([net.a(x)[:, :3], net.g[step % 2][0].expand(len(x), 3)], 1),
}


@pytest.mark.parametrize("way", PHASES)
def test_phases_are_steps(way: str) -> None:
    assert observe(Phases(PHASES[way]).eval(), GIVEN).counts.steps == T
    assert measure_cost(Phases(PHASES[way]).eval(), GIVEN).T == T


def test_layer_by_layer_is_no_phase() -> None:
    class LayerByLayer(InTurn):
        def forward(self, x: Tensor) -> Tensor:
            y = [x] * T
            for i in range(2):
                y = [self.n(F.linear(step, self.w[i])) for step in y]
            return torch.stack([self.out(step) for step in y])

    with pytest.raises(ModelError, match="'n' sees single steps and was called at 2 places"):
        observe(LayerByLayer(lateral), GIVEN)
