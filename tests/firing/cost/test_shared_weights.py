"""Weights that see a static image once, and later in the forward the spikes of all steps in one call."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from tests.firing.cost.fires import Fires, fires  # noqa: F401
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


def _rest(x: Tensor, width: int = 8) -> Tensor:
    return torch.zeros(x.shape[0], width)


class Stepped(nn.Module):
    """`way` is called with layers that are one or, `apart`, two: what sees the image, and what sees spikes."""

    def __init__(self, way: Callable[..., Tensor], steps: int, *, apart: bool = False, inputs: int = 8) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.way, self.steps = way, steps
        self.layer, self.last = nn.Linear(inputs, 8), nn.Linear(8, 3)
        with torch.no_grad():
            self.layer.weight.mul_(5)
        self.other = nn.Linear(inputs, 8) if apart else self.layer
        self.other.load_state_dict(self.layer.state_dict())
        self.a, self.b = Fires(), Fires(0.2) if way in (_shifted, _parts, _half_beside_spikes) else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([self.last(z) for z in self.way(self, x)])


def _kept(net: Stepped, x: Tensor):
    """A current that is kept, and spikes of the step before through the same weights."""
    current = net.layer(x)
    z = net.a(current)
    yield z
    for _ in range(net.steps - 1):
        z = net.a(current + net.other(z))
        yield z


def _from_rest(net: Stepped, x: Tensor):
    current, z = net.layer(x), _rest(x)
    for _ in range(net.steps):
        z = net.a(current + net.other(z))
        yield z


def _shifted(net: Stepped, x: Tensor):
    """The second layer of neurons sees what the first gave a step before."""
    current, late = net.layer(x), _rest(x)
    for step in range(net.steps):
        z = net.a(current)
        yield net.b(net.other(late) if step else late)
        late = z


def _begins(net: Stepped, x: Tensor):
    """The image drives the first step alone."""
    z = net.a(net.layer(x))
    yield z
    for _ in range(net.steps - 1):
        z = net.a(net.other(z))
        yield z


def _begins_and_kept(net: Stepped, x: Tensor):
    z = net.a(net.layer(x) + 0.1 * x)
    yield z
    for _ in range(net.steps - 1):
        z = net.a(net.other(z) + 0.1 * x)
        yield z


def _parts(net: Stepped, x: Tensor):
    """As many parts of the image as there are steps but one, and spikes that are pooled over time."""
    parts = [net.layer(x.roll(part, 1) * (part + 1)) for part in range(net.steps - 1)]
    given = [net.a(sum(parts)) for _ in range(net.steps)]
    more = net.other(sum(given))
    for z in given:
        yield net.b(more + z)


def _dense_recurrence(net: Stepped, x: Tensor):
    """Rates that an image drives from rest, through weights that see no spikes; neurons behind them."""
    h, rates = _rest(x), []
    for _ in range(net.steps):
        h = torch.tanh(x + net.layer(h))
        rates.append(h)
    for rate in rates:
        yield net.a(rate)


def _recurrence_without_rest(net: Stepped, x: Tensor):
    h = torch.tanh(x)
    rates = [h]
    for _ in range(net.steps - 1):
        h = torch.tanh(x + net.layer(h))
        rates.append(h)
    for rate in rates:
        yield net.a(rate)


def _blank_part(net: Stepped, x: Tensor):
    """As many parts of an image as there are steps, the first of them blank."""
    parts = sum(net.layer(x.roll(part, 1) * part) if part else net.layer(_rest(x)) for part in range(net.steps))
    for _ in range(net.steps):
        yield net.a(parts)


def _code_by_time(net: Stepped, x: Tensor):
    """A ramp that begins with nothing, all of it before the neurons."""
    for current in [net.layer(x * step) if step else net.layer(_rest(x)) for step in range(net.steps)]:
        yield net.a(current)


WAYS = {
    "dense recurrence": (_dense_recurrence, lambda steps: (64 * steps, 64 * steps)),
    "recurrence without rest": (_recurrence_without_rest, lambda steps: (64 * (steps - 1), 64 * (steps - 1))),
    "blank part": (_blank_part, lambda steps: (64 * steps, 64 + 64 * (steps - 1) * steps)),
    "code by time": (_code_by_time, lambda steps: (64 * steps, 64 * steps)),
    "kept": (_kept, lambda steps: (64, 64 * steps)),
    "from rest": (_from_rest, lambda steps: (64, 64 * steps)),
    "shifted": (_shifted, lambda steps: (64, 64 * steps)),
    "begins": (_begins, lambda steps: (64, 64)),
    "begins and kept": (_begins_and_kept, lambda steps: (64, 64)),
    "parts": (_parts, lambda steps: (64 * (steps - 1), 64 * (steps - 1) * steps)),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("steps", [3, 4, 5])
@pytest.mark.parametrize("apart", [False, True])
def test_steps_of_one_layer_that_sees_the_image_and_spikes(way: str, steps: int, apart: bool) -> None:
    run, expected = WAYS[way]
    if apart and run in (_kept, _begins, _begins_and_kept):
        pytest.skip("one neuron behind two layers in turn is refused")
    cost = measure_cost(Stepped(run, steps, apart=apart).eval(), (IMAGES, LABELS))
    assert (cost.macs("once"), cost.macs("every_step")) == expected(steps)
    assert not [item for item in cost.left_out if item.of == "operations"]


def _half_beside_spikes(net: Stepped, x: Tensor) -> Tensor:
    """Weights that see the image, and then half of it beside the spikes of all steps."""
    current = net.layer(x)
    z = torch.stack([net.a(current) for _ in range(net.steps)])
    beside = torch.cat([x[:, :4].expand(net.steps, -1, -1), z[..., :4]], -1)
    return torch.stack([net.b(item) for item in net.other(beside)])


@pytest.mark.parametrize("steps", [2, 3, 4])
@pytest.mark.parametrize("apart", [False, True])
def test_half_the_image_beside_spikes_of_all_steps(steps: int, apart: bool) -> None:
    cost = measure_cost(Stepped(_half_beside_spikes, steps, apart=apart).eval(), (IMAGES, LABELS))
    assert (cost.macs("once"), cost.macs("every_step")) == (64 + 32, (64 + 32) * steps)
