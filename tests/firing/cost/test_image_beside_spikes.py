"""An image beside spikes, before the same weights, costs what it costs before weights of its own."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from isofire.firing.cost import measure_cost
from isofire.neurons import LIF

T, N, INPUTS, NEURONS, OUTPUTS = 4, 6, 12, 8, 6
IMAGES = torch.rand(N, INPUTS, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(N) % 3
ONCE = INPUTS * OUTPUTS


def written(spikes: Tensor, still: Tensor) -> Tensor:
    both = torch.zeros(*spikes.shape[:-1], NEURONS + INPUTS)
    both[..., :NEURONS], both[..., NEURONS:] = spikes, still
    return both


def ramp(still: Tensor) -> Tensor:
    return still * torch.tensor([1.0, 1, 0.5, 0.5]).view(-1, 1, 1)


JOINED: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], int]] = {
    "beside": (lambda s, x: torch.cat([s, x], -1), 1), "before": (lambda s, x: torch.cat([x, s], -1), 1),
    "normalized": (lambda s, x: torch.cat([s, (x - 0.5) / 0.2], -1), 1),
    "written": (written, 1), "cut": (lambda s, x: F.relu(torch.cat([s, x - 0.5], -1)), 1),
    "scaled": (lambda s, x: 0.5 * torch.cat([s, x], -1), 1), "moved": (lambda s, x: torch.cat([s, x], -1).flip(-1), 1),
    "of two levels": (lambda s, x: torch.cat([s, ramp(x)], -1), 2),
    "with spikes in it": (lambda s, x: torch.cat([s, x + s.repeat(1, 1, 2)[..., :INPUTS]], -1), T),
    "and a map of spikes": (lambda s, x: torch.cat([s, x[..., :8], torch.tanh(s)[..., :4]], -1), T),
}  # fmt: skip


class Joined(nn.Module):
    def __init__(self, join: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.join, self.first, self.fire = join, nn.Linear(INPUTS, NEURONS), LIF()
        self.both, self.after, self.last = nn.Linear(INPUTS + NEURONS, OUTPUTS), LIF(), nn.Linear(OUTPUTS, 3)

    def forward(self, x: Tensor) -> Tensor:
        still = x.expand(T, -1, -1)
        spikes = self.fire(4 * self.first(still))
        self.spikes = float(spikes.sum())
        return self.last(self.after(self.both(self.join(spikes, still))))


@pytest.mark.parametrize("name", JOINED)
def test_an_image_beside_spikes_is_worked_on_as_often_as_it_differs(name: str) -> None:
    join, times = JOINED[name]
    torch.manual_seed(0)
    model = Joined(join).eval()
    cost = measure_cost(model, (IMAGES, LABELS))
    both = next(item for item in cost.synapses if item.name == "both")
    with torch.no_grad():
        model(IMAGES)
    assert model.spikes > 0
    assert (both.macs_once, both.macs_every_step) == (times * ONCE, T * ONCE)
    assert both.synops.mean == pytest.approx(model.spikes / N * OUTPUTS)
    assert not both.event_driven


def test_images_of_which_parts_are_alike_by_chance_are_not_one() -> None:
    torch.manual_seed(0)

    def halves(s: Tensor, x: Tensor) -> Tensor:
        return torch.cat([s, torch.cat([x[:2], x[2:].flip(-1)])], -1)

    images = torch.cat([torch.zeros(1, INPUTS), IMAGES[:1] + IMAGES[:1].flip(-1)])
    cost = measure_cost(Joined(halves).eval(), (images, torch.arange(2)))
    both = next(item for item in cost.synapses if item.name == "both")
    assert both.macs_once == 2 * ONCE


def test_an_image_of_whole_numbers_beside_spikes_is_events() -> None:
    torch.manual_seed(0)
    images = (IMAGES > 0.5).float()
    model = Joined(JOINED["beside"][0]).eval()
    cost = measure_cost(model, (images, LABELS))
    both = next(item for item in cost.synapses if item.name == "both")
    with torch.no_grad():
        model(images)
    assert (both.macs_once, both.event_driven) == (0, True)
    assert both.synops.mean == pytest.approx((model.spikes + T * float(images.sum())) / N * OUTPUTS)
