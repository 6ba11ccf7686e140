"""An image beside spikes, before the same weights, costs what it costs before weights of its own."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import isofire
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


MIXED: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "beside each other, then a factor": lambda s, x: torch.cat([s, x], -1) / 255,
    "added, then a factor": lambda s, x: (s + x) * 0.3,
    "added, then an offset": lambda s, x: (s + x) - 0.5,
    "by addcmul": lambda s, x: torch.addcmul(torch.zeros(()), s + x, torch.tensor(0.3)),
}


@pytest.mark.parametrize("how", MIXED)
def test_pixels_that_are_made_real_with_spikes_are_no_events(how: str) -> None:
    """They were all events: 255 for a white pixel."""

    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.fire, self.second = LIF(), LIF()
            self.mid = nn.Linear(12 if "beside" in how else 6, 5)
            self.head = nn.Linear(5, 3)

        def forward(self, x: Tensor) -> Tensor:
            steps = x.expand(4, *x.shape).contiguous()
            return self.head(self.second(self.mid(MIXED[how](self.fire(steps / 100), steps))))

    pixels = torch.randint(0, 256, (5, 6), generator=torch.Generator().manual_seed(0)).float()
    net, data = Mixed().eval(), (pixels, torch.arange(5) % 3)
    cost = measure_cost(net, data)
    found = next(item for item in cost.synapses if item.name == "mid")
    assert (found.event_driven, found.synops.max) == (False, 0)
    assert found.macs_every_step == 4 * net.mid.weight.numel()
    assert any("makes spikes real together with whole numbers" in item.reason for item in cost.left_out)
    drift = isofire.compare(net, net, data).synops
    assert drift is not None
    assert any("makes spikes real" in item.reason for item in drift.left_out)


def test_pixels_alone_that_lerp_makes_real_multiply() -> None:
    class Blended(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.mid, self.fire, self.head = nn.Linear(6, 5), LIF(), nn.Linear(5, 3)

        def forward(self, x: Tensor) -> Tensor:
            blended = torch.lerp(torch.zeros_like(x), x, 0.01)
            return self.head(self.fire(self.mid(blended).expand(4, -1, -1).contiguous()))

    pixels = torch.randint(0, 256, (5, 6), generator=torch.Generator().manual_seed(0)).float()
    cost = measure_cost(Blended().eval(), (pixels, torch.arange(5) % 3))
    assert (cost.synapses[0].macs_once, cost.synapses[0].macs_every_step) == (30, 120)
    assert not cost.left_out


@pytest.mark.parametrize("join", ["beside", "added"])
def test_layers_that_input_events_drive_beside_spikes_are_named(join: str) -> None:
    class Skip(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.into, self.fire, self.second = nn.Linear(6, 6), LIF(), LIF()
            self.mid, self.head = nn.Linear(12 if join == "beside" else 6, 5), nn.Linear(5, 3)

        def forward(self, x: Tensor) -> Tensor:
            spikes = self.fire(3 * self.into(x))
            return self.head(self.second(self.mid(torch.cat([x, spikes], -1) if join == "beside" else x + spikes)))

    frames = (torch.rand(4, 5, 6, generator=torch.Generator().manual_seed(0)) < 0.5).float()
    net = Skip().eval()
    drift = isofire.compare(net, net, (frames, torch.arange(5) % 3)).synops
    assert drift is not None
    assert [(item.name, item.share is None) for item in drift.by_input] == [("into", False), ("mid", True)]
