"""A network that treats images of two sizes in two ways, each by layers of its own."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from isofire.firing.cost import measure_cost
from isofire.firing.cost.counting import kinds
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


def work(model: nn.Module, sizes: tuple[int, ...]) -> dict[tuple[str, str], float]:
    found = measure_cost(model.eval(), [IMAGES[size] for size in sizes])
    assert not found.left_out
    sites = [site for site in found.synapses if site.name != "last"]
    return {
        (site.name, how): macs
        for site in sites
        for how, macs in (("once", site.macs_once), ("every", site.macs_every_step))
    }


def due(sizes: tuple[int, ...], small: tuple[int, int]) -> dict[tuple[str, str], float]:
    """Means over all images."""
    large = LARGE**2 * 12
    each = {SMALL: ("all_steps", *small), LARGE: ("repeated", large, large * T)}
    return {
        (each[size][0], how): each[size][place] * sizes.count(size) / len(sizes)
        for size in set(sizes)
        for place, how in ((1, "once"), (2, "every"))
    }


@pytest.mark.parametrize("sizes", ORDERS)
def test_a_layer_that_one_size_alone_has_is_asked_with_that_size(sizes: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    macs = SMALL**2 * T * 12
    assert work(TwoWays(), sizes) == pytest.approx(due(sizes, (macs, macs)))


@pytest.mark.parametrize("sizes", ORDERS)
def test_calls_for_parts_of_one_size_are_no_steps(sizes: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    macs = SMALL**2 * 12
    assert work(Parts(), sizes) == pytest.approx(due(sizes, (macs, macs * T)))


def test_more_ways_than_are_asked_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kinds, "_MOST", 1)
    torch.manual_seed(0)
    found = measure_cost(TwoWays().eval(), [IMAGES[LARGE], IMAGES[SMALL]])
    (told,) = found.left_out
    assert told.name == "all_steps"
    assert "taken T times at every step" in told.reason
