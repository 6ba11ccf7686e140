"""What can be registered as a kind of spiking neuron."""

from __future__ import annotations

from typing import Any

import pytest
from torch import nn

from isofire.adapters import Adapter, adapter_of, register
from isofire.adapters.own import OwnAdapter
from isofire.errors import SpecError


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
