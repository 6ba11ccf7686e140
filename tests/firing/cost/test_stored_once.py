"""Weight memory: each number of each parameter once, however parameters share storages and whoever holds them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from isofire import QuantSpec, quantize_
from isofire.firing.cost import Cost, measure_cost, memory_of
from isofire.neurons import LIF, Repeat

DATA = torch.randn(9, 12, generator=torch.Generator().manual_seed(0)) * 2, torch.arange(9) % 5
FOUR_BITS = QuantSpec(
    weights={"method": "uniform", "bits": 4}, first_layer="quantize", last_layer="quantize"  # type: ignore[arg-type]
)  # fmt: skip


def layers() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(Repeat(4), nn.Linear(12, 10), LIF(v_threshold=0.3), nn.Linear(10, 7), LIF(), nn.Linear(7, 5))


def on_one_vector(model: nn.Module) -> nn.Module:
    nn.utils.vector_to_parameters(nn.utils.parameters_to_vector(model.parameters()), model.parameters())
    return model


def test_parameters_that_lie_in_one_storage_are_stored_each() -> None:
    numbers = 12 * 10 + 10 + 10 * 7 + 7 + 7 * 5 + 5
    found = measure_cost(on_one_vector(layers()), DATA).memory
    assert found.weight_bits == 32 * numbers
    assert [item.stored_in for item in found.weights.values()] == [None] * 3
    own = measure_cost(quantize_(layers(), FOUR_BITS, DATA), DATA).memory.weight_bits
    assert measure_cost(quantize_(on_one_vector(layers()), FOUR_BITS, DATA), DATA).memory.weight_bits == own


class Two(nn.Module):
    """Two layers whose weights are made of one tensor."""

    def __init__(self, first: Callable[[Tensor], Tensor], second: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        held = torch.randn(10, 10)
        self.a, self.b = nn.Linear(10, 10, bias=False), nn.Linear(10, 10, bias=False)
        self.a.weight, self.b.weight = nn.Parameter(first(held)), nn.Parameter(second(held))


@pytest.mark.parametrize(("first", "second", "numbers", "owner"), [
    (lambda w: w, lambda w: w, 100, "a"), (lambda w: w, lambda w: w.T, 100, "a"),
    (lambda w: w, lambda w: w[3:], 100, "a"),
    (lambda w: w, lambda w: w[:, ::2], 100, "a"), (lambda w: w[:4], lambda w: w[4:], 100, None),
    (lambda w: w[:, :4], lambda w: w[:, 4:], 100, None), (lambda w: w[:6], lambda w: w[2:], 100, None),
    (lambda w: w[2:6], lambda w: w, 100, None), (lambda w: w[::2], lambda w: w[1::2, :3], 65, None),
])  # fmt: skip
def test_what_two_layers_share_is_stored_once(first: Callable[..., Tensor], second: Callable[..., Tensor], numbers: int,
                                              owner: str | None) -> None:  # fmt: skip
    """The union of their places, by hand."""
    found = memory_of(Two(first, second), {})
    assert found.weight_bits == 32 * numbers
    assert [item.stored_in for item in found.weights.values()] == [None, owner]


class LowRank(nn.Linear):
    def __init__(self) -> None:
        super().__init__(10, 10)
        self.a, self.b = nn.Parameter(torch.randn(3, 10)), nn.Parameter(torch.randn(10, 3))
        self.height = nn.Parameter(torch.ones(10))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + self.height * F.linear(F.linear(x, self.a), self.b)


class Gated(nn.Linear):
    def __init__(self) -> None:
        super().__init__(10, 10)
        self.gate, self.low = nn.Bilinear(10, 10, 10), nn.Linear(10, 10)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + self.gate(x, x) * self.low(x)


class Scaled(nn.BatchNorm1d):
    """A batch norm with a factor for each step."""

    def __init__(self) -> None:
        super().__init__(10)
        self.p = nn.Parameter(torch.ones(4, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.flatten(0, 1)).unflatten(0, x.shape[:2]) * self.p


def test_what_a_subclass_holds_itself_is_stored_too() -> None:
    for layer, numbers in ((LowRank(), 110 + 60 + 10), (Gated(), 110 + 1010 + 110), (Scaled(), 20 + 4)):
        torch.manual_seed(0)
        model = nn.Sequential(Repeat(4), nn.Linear(12, 10), LIF(), layer, LIF(), nn.Linear(10, 5))
        found = measure_cost(model.eval(), DATA).memory
        assert found.weight_bits == 32 * (12 * 10 + 10 + 10 * 5 + 5 + numbers)


@pytest.mark.parametrize("make", [
    nn.utils.parametrizations.weight_norm, nn.utils.parametrizations.orthogonal,
    pytest.param(nn.utils.weight_norm, marks=pytest.mark.filterwarnings("ignore")),
    lambda layer: nn.utils.prune.random_unstructured(layer, "weight", 0.5), nn.utils.spectral_norm,
])  # fmt: skip
def test_what_weights_are_made_of_is_stored_as_the_weights(make: Callable[[nn.Module], nn.Module]) -> None:
    import torch.nn.utils.prune  # noqa: F401

    assert memory_of(nn.Sequential(make(nn.Linear(12, 10))), {}).weight_bits == 32 * 130


class Parts(nn.Module):
    """Two parameters of one module in one storage; one multiplies, the other is chosen by spikes."""

    def __init__(self) -> None:
        super().__init__()
        held = torch.randn(18, 10)
        self.used, self.chosen = nn.Parameter(held[:10]), nn.Parameter(held[10:])

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.used)[..., :8] + torch.where(x.unsqueeze(-2) > 0, self.chosen, 0.0).sum(-1)


def test_work_is_told_of_the_parameter_and_not_of_its_storage() -> None:
    cost: Cost = measure_cost(nn.Sequential(Repeat(4), nn.Linear(12, 10), LIF(v_threshold=0.3), Parts()).eval(), DATA)
    (item,) = cost.left_out
    assert (item.name, item.share) == ("3.chosen", pytest.approx(80 / (120 + 180)))
    assert [found.name for found in cost.synapses] == ["1", "3.used"]
