"""What can be registered as a kind of spiking neuron."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from isofire.adapters import Adapter, adapter_of, copy_of, register
from isofire.adapters.own import OwnAdapter
from isofire.errors import SpecError
from isofire.neurons import LIF


@pytest.mark.parametrize("kind", [nn.Module, nn.Sequential, nn.Linear])
def test_what_holds_more_than_neurons_is_no_kind_of_neuron(kind: Any) -> None:
    with pytest.raises(SpecError, match=rf"got torch's own {kind.__name__}.* register the class of your neurons"):
        register(kind, OwnAdapter())
    assert adapter_of(nn.Sequential()) is None


@pytest.mark.parametrize(
    ("kind", "adapter", "told"),
    [
        (nn.ReLU(), OwnAdapter(), "only a subclass of torch.nn.Module"),
        (int, OwnAdapter(), "only a subclass of torch.nn.Module"),
        (type("Mine", (nn.Module,), {}), OwnAdapter, "must be an object of a subclass of .*Adapter, got OwnAdapter"),
        (type("Mine", (nn.Module,), {}), Adapter, "must be an object of a subclass of .*Adapter, got Adapter"),
    ],
)
def test_what_is_no_class_or_no_adapter_is_told(kind: Any, adapter: Any, told: str) -> None:
    with pytest.raises(SpecError, match=told):
        register(kind, adapter)


class Watched(nn.Linear):
    """Keeps what it gave last, with its graph, as Sinabs' layers do that count synaptic operations."""

    last: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        self.last = super().forward(x)
        return self.last


def test_what_a_forward_pass_left_behind_does_not_keep_a_network_from_being_copied() -> None:
    model = nn.Sequential(Watched(4, 3), LIF())
    given = model(torch.ones(2, 5, 4))
    twin = copy_of(model)
    assert isinstance(twin[0], Watched)
    assert twin[0].last is not None
    assert not twin[0].last.requires_grad
    assert torch.equal(twin(torch.ones(2, 5, 4)), given)
    assert twin[0].weight is not model[0].weight
    # the model's own has its graph still
    assert model[0].last.grad_fn is not None
