"""What comes before one neuron in turn is places, unless the network goes on behind each call as behind the last."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from tests.adapters.stepping import Step, registered  # noqa: F401
from torch import Tensor, nn
from torch.nn import functional as F

from isofire.errors import ModelError
from isofire.firing import observe

T = 3
GIVEN = torch.rand(8, 6, generator=torch.Generator().manual_seed(0)), torch.arange(8) % 3
FRAMES = GIVEN[0][:, None] * torch.rand(8, T, 6, generator=torch.Generator().manual_seed(1)), GIVEN[1]

Way = Callable[[Any, Tensor, Tensor], Tensor]


class InTurn(nn.Module):
    """One neuron that sees several things in turn in each of T rounds; `x` is what a round is given, `y` what the call
    before gave."""

    def __init__(self, ways: Sequence[Way], each: bool = False, active: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.c, self.sensor = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(3, 6)
        self.w, self.masks = nn.Parameter(torch.rand(6, 6)), [(torch.rand(6, 6) > 0.5).float() for _ in range(2)]
        self.place, self.drop, self.pool = nn.Embedding(1, 6), nn.Dropout(), nn.AvgPool1d(3, 1, 1)
        self.n, self.out, self.act = Step(), nn.Linear(6, 3), nn.ReLU()
        self.ways, self.each, self.active = ways, each, active

    def forward(self, x: Tensor) -> Tensor:
        steps = []
        for t in range(T):
            given = y = x if x.ndim == 2 else x[:, t]
            for way in self.ways:
                y = self.n(way(self, given, y))
                if self.each:
                    steps.append(self.out(self.activated(y)))
            if not self.each:
                steps.append(self.activated(y))
        return torch.stack(steps) if self.each else self.out(torch.stack(steps))

    def activated(self, y: Tensor) -> Tensor:
        return self.act(y) if self.active else y

    def where(self) -> Tensor:
        return self.place(torch.zeros(1, dtype=torch.int64))


def a(net: InTurn, x: Tensor, y: Tensor) -> Tensor:
    return net.a(x)


def a_and_b(net: InTurn, x: Tensor, y: Tensor) -> Tensor:
    return net.a(x) + net.b(y)


def b(net: InTurn, x: Tensor, y: Tensor) -> Tensor:
    return net.b(y)


WAYS: dict[str, Sequence[Way]] = {
    "two layers": (a, b),
    "a skip of the input": (a, a_and_b),
    "skips of three layers": (a, a_and_b, lambda net, x, y: net.a(x) + net.b(x) + net.c(y)),
    "an embedding at both": (lambda net, x, y: x + net.where(), lambda net, x, y: net.where() + net.b(y)),
    "an embedding, and own weights": (lambda net, x, y: x + net.where(), lambda net, x, y: net.where() + y @ net.w),
    "dropout of the input": (lambda net, x, y: net.drop(x), lambda net, x, y: net.drop(x) + net.b(y)),
    "two sensors": (lambda net, x, y: net.sensor(x[:, :3]), lambda net, x, y: net.sensor(x[:, 3:]) + net.b(y)),
    "two sensors before one layer": (
        lambda net, x, y: net.sensor(x[:, :3]),
        lambda net, x, y: net.sensor(x[:, 3:]),
    ),
    "one layer twice": (lambda net, x, y: net.a(y), lambda net, x, y: net.a(y)),
    "weights and their transpose": (lambda net, x, y: y @ net.w, lambda net, x, y: y @ net.w.T),
    "two masks on some weights": (
        lambda net, x, y: y @ (net.w * net.masks[0]),
        lambda net, x, y: y @ (net.w * net.masks[1]),
    ),
    "a module and its weights": (lambda net, x, y: net.a(y), lambda net, x, y: F.linear(y, net.a.weight)),
    "a pool and nothing": (lambda net, x, y: net.pool(y[:, None])[:, 0], lambda net, x, y: y * 0.7),
    "the image and a layer": (lambda net, x, y: x * 1.5, b),
}


@pytest.mark.parametrize("ways", WAYS)
def test_what_comes_in_turn_is_places(ways: str) -> None:
    for given in (GIVEN, FRAMES) if ways != "two sensors before one layer" else (GIVEN,):
        with pytest.raises(ModelError, match=rf"'n' sees single steps and was called at {len(WAYS[ways])} places"):
            observe(InTurn(WAYS[ways]).eval(), given)


@pytest.mark.parametrize("active", [False, True])
def test_what_is_read_behind_each_call_alike_is_steps(active: bool) -> None:
    assert observe(InTurn((a, a_and_b), each=True, active=active).eval(), GIVEN).counts.steps == 2 * T


@pytest.mark.parametrize("ways", ["two layers", "two sensors"])
def test_two_inputs_and_two_layers_are_places_also_where_they_are_read(ways: str) -> None:
    with pytest.raises(ModelError, match="was called at 2 places"):
        observe(InTurn(WAYS[ways], each=True).eval(), GIVEN)


def test_an_activation_in_common_reads_nothing() -> None:
    ways = (lambda net, x, y: net.a(x), lambda net, x, y: net.b(net.act(y)) + net.a(x))
    with pytest.raises(ModelError, match="was called at 2 places"):
        observe(InTurn(ways, active=True).eval(), GIVEN)


class Frames(InTurn):
    """Of a recording; what comes before the neuron changes with the step."""

    def forward(self, x: Tensor) -> Tensor:
        steps, y = [], torch.zeros(len(x), 6)
        for t in range(x.shape[1]):
            y = self.n(a_and_b(self, x[:, t], y) if t % 2 else self.a(x[:, t]))
            steps.append(self.out(y))
        return torch.stack(steps)


def test_recurrences_of_every_other_frame_are_steps() -> None:
    frames = torch.rand(8, 4, 6), GIVEN[1]
    assert observe(Frames(()).eval(), frames).counts.steps == 4


class LayerByLayer(InTurn):
    """All steps of a layer, then all of the next, which sees the image too."""

    def forward(self, x: Tensor) -> Tensor:
        y = [self.n(self.a(x)) for _ in range(T)]
        return torch.stack([self.out(z) for z in self.again(x, y)])

    def again(self, x: Tensor, y: list[Tensor]) -> list[Tensor]:
        return [self.n(a_and_b(self, x, z)) for z in y]


class LayerByLayerOnOneLine(LayerByLayer):
    def forward(self, x: Tensor) -> Tensor:
        y: list[Tensor] = [x] * T
        for layer in (a, a_and_b):
            y = [self.n(layer(self, x, z)) for z in y]
        return torch.stack([self.out(z) for z in y])


@pytest.mark.parametrize("kind", [LayerByLayer, LayerByLayerOnOneLine])
def test_layer_by_layer_with_a_skip_is_places(kind: type[InTurn]) -> None:
    with pytest.raises(ModelError, match="was called at 2 places"):
        observe(kind(()).eval(), GIVEN)
