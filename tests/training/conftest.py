"""A small set of four separable classes and a small network that uses batch normalization and random numbers."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from isofire.data import ImageSet


class TinyNet(nn.Module):
    """[N, 1, 8, 8] -> [2, N, 4]: convolution, batch norm, dropout, and a linear layer per time step."""

    def __init__(self, dropout: float = 0.2) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 6, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(6)
        self.dropout = nn.Dropout(dropout)
        self.heads = nn.ModuleList(nn.Linear(6 * 16, 4) for _ in range(2))

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.dropout(self.norm(self.conv(images)).relu()).flatten(1)
        return torch.stack([head(hidden) for head in self.heads])


def make_set(n: int, split: str, seed: int) -> ImageSet:
    """Class k lights up quadrant k, under noise."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 4
    images = torch.randint(0, 120, (n, 1, 8, 8), generator=generator, dtype=torch.uint8)
    for image, label in zip(images, labels.tolist(), strict=True):
        row, column = divmod(label, 2)
        image[:, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4] += 100
    return ImageSet("quadrants", split, images, labels, ("a", "b", "c", "d"), (0.33,), (0.25,))


@pytest.fixture
def train_set() -> ImageSet:
    return make_set(50, "train", 0)


@pytest.fixture
def valid_set() -> ImageSet:
    return make_set(20, "valid", 1)


@pytest.fixture
def make_images() -> Callable[[int, str, int], ImageSet]:
    return make_set


@pytest.fixture
def make_net() -> Callable[..., TinyNet]:
    def build(seed: int = 0, **options: float) -> TinyNet:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return TinyNet(**options)

    return build
