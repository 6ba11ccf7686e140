"""Networks whose spikes are known: the inputs are the spikes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from isofire.firing import SpikeCounts
from isofire.neurons import IF


class Given(IF):
    """A neuron layer that fires exactly what it is given."""

    def forward(self, x: Tensor) -> Tensor:
        return x


class Echo(nn.Module):
    """Inputs [N, T, *shape] are the spikes of `first`; `gain` times them, mirrored, those of `second`.

    Logits [T, N, classes] are the first `classes` neurons of `second`.
    """

    def __init__(self, classes: int = 2, gain: float = 1.0, neuron: Callable[[], nn.Module] = Given) -> None:
        super().__init__()
        self.first = neuron()
        self.block = nn.Sequential(nn.Identity(), neuron())
        self.gain = nn.Parameter(torch.tensor(gain))
        self.dropout = nn.Dropout(0.5)
        self.classes = classes

    def forward(self, x: Tensor) -> Tensor:
        spikes = self.first(x.transpose(0, 1))
        hidden = self.block(self.dropout(spikes.flip(-1)) * self.gain)
        return hidden.flatten(2)[..., : self.classes]


@pytest.fixture
def given_neuron() -> type[nn.Module]:
    return Given


@pytest.fixture
def echo() -> type[nn.Module]:
    return Echo


@pytest.fixture
def spikes() -> Callable[..., Tensor]:
    """Random spike trains [N, T, *shape], whole numbers, most of them 0."""

    def make(images: int, *shape: int, steps: int = 3, seed: int = 0, top: int = 2) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        draw = torch.randint(-3, top, (images, steps, *shape), generator=generator)
        return draw.clamp(min=0).float()

    return make


@pytest.fixture
def counts() -> Callable[..., SpikeCounts]:
    """A small recording: layers "a" [2, 3] and "b" [4], two blocks, 5 images, T = 4."""

    def make(seed: int = 0, **changes: object) -> SpikeCounts:
        generator = torch.Generator().manual_seed(seed)

        def draw(*shape: int) -> Tensor:
            return torch.randint(0, 9, (2, *shape), generator=generator, dtype=torch.int32)

        fields = {
            "counts": {"b": draw(2, 3), "a": draw(4)},
            "images_per_block": torch.tensor([3, 2]),
            "steps": 4,
        }
        return SpikeCounts(**{**fields, **changes})  # type: ignore[arg-type]

    return make
