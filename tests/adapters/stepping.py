"""A neuron of one's own that sees single steps, and is registered while a test runs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.bare import BareAdapter
from torch import Tensor, nn

from isofire.adapters import register, unregister


class Step(nn.Module):
    """Integrates, fires at 1 and keeps its state from call to call."""

    def __init__(self) -> None:
        super().__init__()
        self.v: Tensor | float = 0.0

    def forward(self, x: Tensor) -> Tensor:
        v = self.v + x
        spikes = (v >= 1).to(x.dtype)
        self.v = v - spikes
        return spikes


def _rest(neuron: Step) -> None:
    neuron.v = 0.0


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    register(Step, BareAdapter(reset=_rest))
    yield
    unregister(Step)
