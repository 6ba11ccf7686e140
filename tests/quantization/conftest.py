"""A small spiking network and data for it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from isofire.neurons import IF, LIF, PerStep


class SmallNet(nn.Module):
    """Two convolutions, one linear layer in between, three layers of neurons; [N, 1, 6, 6] -> [T, N, 3]."""

    def __init__(self, T: int = 4) -> None:
        super().__init__()
        self.T = T
        self.conv1 = PerStep(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4))
        self.fire1 = LIF()
        self.conv2 = PerStep(nn.Conv2d(4, 5, 3), nn.BatchNorm2d(5))
        self.fire2 = LIF()
        self.hidden = PerStep(nn.Flatten(), nn.Linear(5 * 4 * 4, 8))
        self.fire3 = IF()
        self.head = PerStep(nn.Linear(8, 3))

    def forward(self, x: Tensor) -> Tensor:
        x = x.unsqueeze(0).expand(self.T, *x.shape)
        x = self.fire2(self.conv2(self.fire1(self.conv1(x))))
        return self.head(self.fire3(self.hidden(x)))


@pytest.fixture
def net() -> SmallNet:
    torch.manual_seed(0)
    net = SmallNet()
    with torch.no_grad():
        net(torch.randn(64, 1, 6, 6))
    return net.eval()


@pytest.fixture
def images() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(96, 1, 6, 6, generator=generator) * 2, torch.randint(0, 3, (96,), generator=generator)
