"""Networks that run inside of torch's function transforms, or on nested tensors, whose tensors have no memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tests.adapters.stepping import Step, registered  # noqa: F401
from torch import Tensor, nn
from torch.func import grad, jvp, vmap

from isofire.adapters.memory import place
from isofire.firing import observe
from isofire.firing.cost import measure_cost

T = 3
GIVEN = torch.rand(8, 6, generator=torch.Generator().manual_seed(0)), torch.arange(8) % 3


class Transformed(nn.Module):
    def __init__(self, way: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.w, self.a = nn.Parameter(torch.rand(6, 6)), nn.Linear(6, 6)
        self.n, self.out, self.way = Step(), nn.Linear(6, 3), way

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([self.out(self.n(self.way(self, x))) for _ in range(T)])


def nested(net: Transformed, x: Tensor) -> Tensor:
    rows = torch.nested.nested_tensor([row[None] for row in x])
    return torch.nested.to_padded_tensor(rows @ torch.nested.nested_tensor([net.w.detach() for _ in x]), 0.0)[:, 0]


def plain(net: Transformed, x: Tensor) -> Tensor:
    return net.a(x)


WAYS: dict[str, tuple[Callable[[Any, Tensor], Tensor], Callable[[Any, Tensor], Tensor]]] = {
    "vmap": (lambda net, x: vmap(net.a)(x), plain),
    "vmap of own weights": (
        lambda net, x: vmap(lambda row: net.a(row) + row @ net.w)(x),
        lambda net, x: net.a(x) + x @ net.w,
    ),
    "jvp": (lambda net, x: jvp(net.a, (x,), (x,))[0], plain),
    "grad": (
        lambda net, x: grad(lambda y: net.a(y).sum())(x),
        lambda net, x: net.a.weight.sum(0).expand(len(x), 6) + 0 * net.a(x),
    ),
    "nested": (nested, lambda net, x: x @ net.w),
}


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
@pytest.mark.parametrize("way", WAYS)
def test_transforms_change_no_count(way: str) -> None:
    counts = [observe(Transformed(run).eval(), GIVEN).counts for run in WAYS[way]]
    assert counts[0].steps == counts[1].steps == T
    assert torch.equal(counts[0].per_neuron("n"), counts[1].per_neuron("n"))


def test_costs_of_a_transformed_layer_are_those_of_the_layer() -> None:
    costs = [measure_cost(Transformed(run).eval(), GIVEN) for run in WAYS["vmap"]]
    assert costs[0].synops == costs[1].synops


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
def test_tensors_without_a_memory_have_no_place() -> None:
    x = torch.rand(2, 3)
    assert place(x) == place(x[0])
    assert place(x) != place(x.clone())
    assert place(x.to_sparse()) is None
    assert place(torch.nested.nested_tensor([x])) is None
    seen: list[int | None] = []
    vmap(lambda row: (seen.append(place(row)), row)[1])(x)
    assert seen == [None]
