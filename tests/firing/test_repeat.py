"""A network that keeps something from one batch to the next is told, for its numbers depend on the order of batches."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from isofire.firing import compare
from isofire.models import sew_resnet8
from isofire.neurons import LIF

X, Y = torch.rand(20, 6, generator=torch.Generator().manual_seed(0)) * 4, torch.arange(20) % 3
TOLD = "gives other numbers when the same images are shown again"


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.n, self.b = nn.Linear(6, 8), LIF(v_threshold=0.3), nn.Linear(8, 3)
        self.register_buffer("count", torch.zeros(()))
        self.kept: Tensor | float = 0.0

    def logits(self, x: Tensor) -> Tensor:
        return self.b(self.n(self.a(x.unsqueeze(0).repeat(4, 1, 1))))

    def forward(self, x: Tensor) -> object:
        return self.logits(x)


class Integrates(Net):
    """A readout of its own that is never brought to rest."""

    def forward(self, x: Tensor) -> Tensor:
        steps = []
        for step in self.logits(x):
            kept = self.kept if isinstance(self.kept, Tensor) and len(self.kept) == len(x) else 0.0
            self.kept = 0.9 * kept + step
            steps.append(self.kept)
        return torch.stack(steps)


class Counts(Net):
    def forward(self, x: Tensor) -> Tensor:
        self.count += 1
        return self.logits(x) + self.count * torch.tensor([0.0, 0.5, 0.0])


class DrawsByNumpy(Net):
    def forward(self, x: Tensor) -> Tensor:
        return self.logits(x * torch.from_numpy(np.random.default_rng().random(x.shape)).float())


class BringsItselfToRest(Integrates):
    def forward(self, x: Tensor) -> Tensor:
        self.kept = 0.0
        return super().forward(x)


class DrawsByTorch(Net):
    def forward(self, x: Tensor) -> Tensor:
        return self.logits((torch.rand(x.shape) < x / 4).float() * 4)


class Masked(Net):
    """With numbers that are equal to nothing, or to themselves only."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.logits(x)
        return torch.where(logits < 0, -torch.inf, logits), torch.full((len(x), 1, 1, 1), torch.nan)


@pytest.mark.parametrize("kind", [Integrates, Counts, DrawsByNumpy])
def test_what_is_kept_from_batch_to_batch_is_told(kind: type[Net], caplog: pytest.LogCaptureFixture) -> None:
    compare(kind(), kind(), (X, Y), batch_size=10)
    assert caplog.text.count(f"{kind.__name__} {TOLD}") == 2


@pytest.mark.parametrize("kind", [Net, BringsItselfToRest, DrawsByTorch, Masked])
def test_networks_that_begin_at_rest_are_not(kind: type[Net], caplog: pytest.LogCaptureFixture) -> None:
    found = compare(kind(), kind(), (X, Y), batch_size=10)
    assert found.agreement == 1
    assert TOLD not in caplog.text


def test_looking_twice_changes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    model = sew_resnet8(width=0.25, T=2, in_channels=1, num_classes=3)
    images = torch.rand(6, 1, 8, 8)
    state = torch.random.get_rng_state()
    compare(model, model, (images, torch.arange(6) % 3), batch_size=3)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert TOLD not in caplog.text
