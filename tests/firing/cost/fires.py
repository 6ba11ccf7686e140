"""A neuron of a user's own that sees one step a call and keeps no state, known while a test runs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from isofire.adapters import Adapter, Layout, register, unregister


class Fires(nn.Module):
    """Fires wherever its input lies above `at`."""

    def __init__(self, at: float = 0.5) -> None:
        super().__init__()
        self.at = at

    def forward(self, x: Tensor) -> Tensor:
        return (x > self.at).float()


class FiresAdapter(Adapter):
    def layout(self, neuron: nn.Module) -> Layout:
        return Layout.STEP

    def threshold(self, neuron: nn.Module) -> Tensor:
        return torch.full((), neuron.at)

    def states(self, neuron: nn.Module) -> tuple[str, ...]:
        return ("membrane",)

    def host(self, neuron: nn.Module) -> type:
        raise NotImplementedError


@pytest.fixture(autouse=True)
def fires() -> Iterator[None]:
    register(Fires, FiresAdapter())
    yield
    unregister(Fires)
