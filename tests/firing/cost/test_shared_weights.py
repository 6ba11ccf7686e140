"""Weights that see a static image once, and later in the forward the spikes of all steps in one call."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from isofire.firing.cost import measure_cost
from isofire.neurons import LIF

IMAGES, LABELS = torch.rand(10, 8, generator=torch.Generator().manual_seed(0)), torch.arange(10) % 3
Show = Callable[[nn.Module, Tensor, int], Tensor]
SHOWN: dict[str, Show] = {
    "repeated behind": lambda layer, x, steps: layer(x).repeat(steps, 1, 1),
    "expanded behind": lambda layer, x, steps: layer(x).expand(steps, -1, -1),
    "repeated before": lambda layer, x, steps: layer(x.repeat(steps, 1, 1)),
    "a loop": lambda layer, x, steps: torch.stack([layer(x) for _ in range(steps)]),
}


class Shared(nn.Module):
    def __init__(self, steps: int, show: Show, uses: int, *, apart: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.steps, self.show = steps, show
        self.layer, self.last = nn.Linear(8, 8), nn.Linear(8, 3)
        with torch.no_grad():
            self.layer.weight.mul_(5)
        self.neurons = nn.ModuleList(LIF() for _ in range(uses + 1))
        self.others = nn.ModuleList(nn.Linear(8, 8) for _ in range(uses)) if apart else [self.layer] * uses
        if apart:
            for other in self.others:
                other.load_state_dict(self.layer.state_dict())

    def forward(self, x: Tensor) -> Tensor:
        spikes = self.neurons[0](self.show(self.layer, x, self.steps))
        for layer, neuron in zip(self.others, list(self.neurons)[1:], strict=True):
            spikes = neuron(layer(spikes))
        return self.last(spikes)


@pytest.mark.parametrize("shown", SHOWN)
@pytest.mark.parametrize("steps", [2, 3, 4])
@pytest.mark.parametrize("uses", [1, 2, 3])
def test_what_they_see_of_the_image_counts_as_if_they_were_two(shown: str, steps: int, uses: int) -> None:
    one = measure_cost(Shared(steps, SHOWN[shown], uses).eval(), (IMAGES, LABELS))
    two = measure_cost(Shared(steps, SHOWN[shown], uses, apart=True).eval(), (IMAGES, LABELS))
    assert (one.macs("once"), one.macs("every_step")) == (64, 64 * steps)
    assert (two.macs("once"), two.macs("every_step")) == (64, 64 * steps)
    assert one.synops.mean == pytest.approx(two.synops.mean)
    assert one.synops.mean > 0
