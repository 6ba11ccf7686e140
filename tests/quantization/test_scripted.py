"""Networks with a part that torch.jit.script made: it stays float by name, and copies of it can be trained."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import isofire
from isofire import QuantSpec
from isofire.adapters import copy_of
from isofire.errors import ModelError
from isofire.neurons import LIF
from isofire.quantization import left_out, make_plan, prepare, quantize_

SPEC = QuantSpec(
    weights={"method": "uniform", "bits": 4},
    first_layer="quantize",
    last_layer="quantize",  # type: ignore[arg-type]
)
X = 3 * torch.rand(16, 6, generator=torch.Generator().manual_seed(0))


class Scripted(nn.Module):
    """6 x 8, a scripted 8 x 8 and 8 x 3 weights."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.into, self.last = nn.Linear(6, 8), nn.Linear(8, 3)
        self.first, self.second = LIF(), LIF()
        self.mid = torch.jit.script(nn.Linear(8, 8))

    def forward(self, x: Tensor) -> Tensor:
        x = self.into(x)
        return self.last(self.second(3 * self.mid(self.first(x.expand(4, *x.shape)))))


def test_the_scripted_part_is_named_and_stays_as_it_is() -> None:
    model, plain = Scripted(), Scripted()
    (found,) = left_out(model, make_plan(model, SPEC))
    assert (found.name, found.weights, found.share) == ("mid.weight", 64, 64 / (48 + 64 + 24))
    quantize_(model, SPEC, X)
    assert torch.equal(model.mid.weight, plain.mid.weight)
    assert not torch.equal(model.into.weight, plain.into.weight)


def test_a_copy_is_trained_as_the_network_would_be() -> None:
    model = Scripted()
    twin = prepare(model, SPEC)
    assert all(p.is_leaf and p.requires_grad for p in twin.parameters())
    before = model.mid.weight.detach().clone()
    twin(X).sum().backward()
    assert twin.mid.weight.grad is not None
    with torch.no_grad():
        twin.mid.weight.zero_()
    assert model.mid.weight.grad is None
    assert torch.equal(model.mid.weight, before)


def test_it_runs_fast_with_the_same_outputs() -> None:
    model = quantize_(Scripted(), SPEC, X).eval()
    with torch.no_grad():
        assert torch.allclose(isofire.fast(model)(X), model(X), atol=1e-5)


def test_a_weight_that_a_scripted_part_shares_is_copied_all_the_same() -> None:
    model = Scripted()
    model.more = nn.Linear(8, 8)  # type: ignore[assignment]
    model.more.weight = model.mid.weight
    twin = copy_of(model)
    assert torch.equal(twin.more.weight, model.mid.weight)
    assert all(p.is_leaf and p.requires_grad for p in twin.parameters())


@pytest.mark.parametrize("layer", [nn.LazyLinear(3), nn.LazyBatchNorm1d()])
@pytest.mark.parametrize("verb", [lambda net: prepare(net, SPEC), isofire.fast])
def test_layers_without_shapes_are_told_as_such(layer: nn.Module, verb: Any) -> None:
    with pytest.raises(ModelError, match="run one batch through"):
        verb(nn.Sequential(layer, nn.Linear(3, 3), LIF()))
