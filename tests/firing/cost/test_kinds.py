"""A network that treats images of two sizes in two ways, each by layers of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from isofire.firing.cost import measure_cost
from isofire.firing.cost.counting import kinds, sizes
from isofire.firing.cost.counting.tally import Lying
from isofire.neurons import IF

T = 4
SMALL, LARGE = (4, 8)
GENERATOR = torch.Generator().manual_seed(1)
IMAGES = {size: (torch.rand(6, 1, size, size, generator=GENERATOR) * 3, torch.arange(6) % 3) for size in (SMALL, LARGE)}
ORDERS = [(SMALL,), (LARGE,), (SMALL, LARGE), (LARGE, SMALL), (LARGE, SMALL, LARGE)]


class TwoWays(nn.Module):
    """Of a small image one layer gives the currents of all steps; a large one is repeated behind its layer."""

    def __init__(self) -> None:
        super().__init__()
        self.all_steps, self.repeated = nn.Linear(SMALL**2, T * 12), nn.Linear(LARGE**2, 12)
        self.neurons, self.last = IF(), nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[-1] == SMALL:
            currents = self.all_steps(x.flatten(1)).view(len(x), T, 12).transpose(0, 1)
        else:
            currents = self.repeated(x.flatten(1)).expand(T, -1, -1)
        return torch.stack([self.last(spikes) for spikes in self.neurons(currents)])


class Parts(TwoWays):
    """Of a small image each of T quarters goes through one layer, for all steps."""

    def __init__(self) -> None:
        super().__init__()
        self.all_steps = nn.Linear(SMALL**2 // T, 12)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[-1] != SMALL:
            return super().forward(x)
        parts = [self.all_steps(part) for part in x.flatten(1).chunk(T, 1)]
        return torch.stack([self.last(spikes) for spikes in self.neurons(torch.stack(parts).sum(0).expand(T, -1, -1))])


def work(model: nn.Module, shown: tuple[int, ...]) -> dict[tuple[str, str], float]:
    found = measure_cost(model.eval(), [IMAGES[size] for size in shown])
    assert not found.left_out
    sites = [site for site in found.synapses if site.name != "last"]
    return {
        (site.name, how): macs
        for site in sites
        for how, macs in (("once", site.macs_once), ("every", site.macs_every_step))
    }


def due(shown: tuple[int, ...], small: tuple[int, int]) -> dict[tuple[str, str], float]:
    """Means over all images."""
    large = LARGE**2 * 12
    each = {SMALL: ("all_steps", *small), LARGE: ("repeated", large, large * T)}
    return {
        (each[size][0], how): each[size][place] * shown.count(size) / len(shown)
        for size in set(shown)
        for place, how in ((1, "once"), (2, "every"))
    }


@pytest.mark.parametrize("shown", ORDERS)
def test_a_layer_that_one_size_alone_has_is_asked_with_that_size(shown: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    macs = SMALL**2 * T * 12
    assert work(TwoWays(), shown) == pytest.approx(due(shown, (macs, macs)))


@pytest.mark.parametrize("shown", ORDERS)
def test_calls_for_parts_of_one_size_are_no_steps(shown: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    macs = SMALL**2 * 12
    assert work(Parts(), shown) == pytest.approx(due(shown, (macs, macs * T)))


def test_more_ways_than_are_asked_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kinds, "_MOST", 1)
    torch.manual_seed(0)
    found = measure_cost(TwoWays().eval(), [IMAGES[LARGE], IMAGES[SMALL]])
    (told,) = found.left_out
    assert told.name == "all_steps"
    assert "for images of some sizes" in told.reason


class Rows(TwoWays):
    """Of a small image T parts go through one layer in one call."""

    def __init__(self) -> None:
        super().__init__()
        self.all_steps = nn.Linear(SMALL**2 // T, 12)

    def forward(self, x: Tensor) -> Tensor:
        parts = self.all_steps(x.flatten(1).view(len(x), T, -1)).sum(1)
        return torch.stack([self.last(spikes) for spikes in self.neurons(parts.expand(T, -1, -1))])


def test_rows_of_which_the_network_tells_nothing_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sizes, "rows_of", lambda *_, **__: (Lying(), frozenset({"all_steps"})))
    torch.manual_seed(0)
    (told,) = measure_cost(Rows().eval(), [IMAGES[SMALL]]).left_out
    assert (told.name, "may be steps or parts of the image" in told.reason) == ("all_steps", True)


class Looped(TwoWays):
    """Each size has a layer of its own, which sees the image again at each step."""

    def __init__(self) -> None:
        super().__init__()
        self.all_steps = nn.Linear(SMALL**2, 12)

    def forward(self, x: Tensor) -> Tensor:
        layer = self.all_steps if x.shape[-1] == SMALL else self.repeated
        currents = torch.stack([layer(x.flatten(1)) for _ in range(T)])
        return torch.stack([self.last(spikes) for spikes in self.neurons(currents)])


@pytest.mark.parametrize("shown", ORDERS)
def test_inputs_that_come_again_are_told_by_noise_of_each_size(shown: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    macs = SMALL**2 * 12
    assert work(Looped(), shown) == pytest.approx(due(shown, (macs, macs * T)))


@pytest.mark.parametrize("first", [0.0, 0.5])
@pytest.mark.parametrize("turned", [False, True])
def test_images_that_tell_nothing_wait_for_others(first: float, turned: bool) -> None:
    """Of T parts that one call sees, blank ones do not tell whether they are steps."""
    torch.manual_seed(0)
    batches = [(torch.full((6, 1, SMALL, SMALL), first), torch.arange(6) % 3), IMAGES[SMALL]]
    found = measure_cost(Rows().eval(), batches[::-1] if turned else batches)
    assert not found.left_out
    (site,) = (site for site in found.synapses if site.name == "all_steps")
    assert (site.macs_once, site.macs_every_step) == (SMALL**2 * 12, SMALL**2 * 12 * T)


def test_images_that_all_tell_nothing_are_counted_at_the_end() -> None:
    torch.manual_seed(0)
    blank = torch.zeros(6, 1, LARGE, LARGE), torch.arange(6) % 3
    assert measure_cost(TwoWays().eval(), [blank, blank]).n_images == 12


def test_rounding_makes_no_other_input() -> None:
    """An image that was repeated before a layer differs in its last bits behind it, where the next sees each step."""

    class Loop(nn.Module):
        def __init__(self, features: int, steps: int) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(features, 8), nn.Linear(8, 8)
            self.neurons, self.last, self.steps = IF(), nn.Linear(8, 3), steps

        def forward(self, x: Tensor) -> Tensor:
            found = self.first(x.expand(self.steps, *x.shape))
            spikes = self.neurons(torch.stack([self.second(step) for step in found]))
            return torch.stack([self.last(step) for step in spikes])

    for features in (5, 13):
        for steps in (2, 4, 6):
            torch.manual_seed(0)
            net = Loop(features, steps).eval()
            found = measure_cost(net, [(torch.rand(6, features) * 4, torch.arange(6) % 3)])
            macs = {site.name: (site.macs_once, site.macs_every_step) for site in found.synapses}
            assert macs["first"] == (features * 8, features * 8 * steps)
            assert macs["second"] == (64, 64 * steps)


def test_what_waits_is_not_what_its_loader_makes_of_it() -> None:
    torch.manual_seed(0)
    net, buffer = TwoWays().eval(), torch.zeros(6, 1, SMALL, SMALL)

    def batches(share: bool) -> Iterator[tuple[Tensor, Tensor]]:
        for images in (torch.zeros(6, 1, SMALL, SMALL), torch.zeros(6, 1, SMALL, SMALL), IMAGES[SMALL][0]):
            buffer.copy_(images)
            yield buffer if share else images, torch.arange(6) % 3

    found = [measure_cost(net, list(batches(False))), measure_cost(net, batches(True))]
    assert found[0].synops == found[1].synops
    assert found[0].n_images == found[1].n_images == 18


def test_few_batches_wait() -> None:
    torch.manual_seed(0)
    blank = torch.zeros(2, 1, SMALL, SMALL), torch.arange(2)
    found = measure_cost(TwoWays().eval(), [blank] * 20 + [IMAGES[SMALL]])
    assert found.n_images == 46
