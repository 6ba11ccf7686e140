"""What a forward does once is counted once, whichever way the network goes through its steps."""

from __future__ import annotations

import pytest
import torch
from tests.firing.cost.fires import Fires, fires  # noqa: F401
from torch import Tensor, nn

from isofire.errors import ModelError
from isofire.firing.cost import SynapseCost, measure_cost, reach
from isofire.neurons import IF, PerStep, Repeat

LABELS = torch.zeros(5, dtype=torch.int64)


def places(model: nn.Module, images: Tensor) -> dict[str, SynapseCost]:
    cost = measure_cost(model.eval(), (images, LABELS))
    assert all(item.of == "states" for item in cost.left_out)
    return {item.name: item for item in cost.synapses}


class FedBack(nn.Module):
    """Spikes come back to their neurons through weights, which see a state at rest at the first of 4 steps."""

    def __init__(self, convolved: bool) -> None:
        super().__init__()
        self.enc = nn.Conv2d(1, 2, 1) if convolved else nn.Linear(6, 8)
        self.rec = nn.Conv2d(2, 2, 1, bias=False) if convolved else nn.Linear(8, 8, bias=False)
        self.fire, self.unit = Fires(), nn.Linear(4, 1)
        self.out = nn.Linear(72 if convolved else 8, 3)

    def forward(self, x: Tensor) -> Tensor:
        current, total = self.enc(x), 0
        spikes, offset = torch.zeros_like(current), self.unit(torch.full((len(x), 4), 0.5)).mean().abs()
        for _ in range(4):
            spikes = self.fire(current + self.rec(spikes) + offset)
            total = total + self.out(spikes.flatten(1))
        return total


@pytest.mark.parametrize("convolved", [False, True])
def test_a_state_at_rest_brings_no_events_and_a_constant_is_worked_on_once(convolved: bool) -> None:
    torch.manual_seed(0)
    model = FedBack(convolved)
    images = torch.rand(5, 1, 6, 6) * 2 if convolved else torch.rand(5, 6) * 2
    fired = []
    model.fire.register_forward_hook(lambda _m, _i, out: fired.append(float(out.sum()) / len(out)))
    with torch.no_grad():
        model(images)
    spikes = fired[:4]
    assert sum(spikes) > 0
    found = places(model, images)
    # 2 x 1 x 1 weights lead away from a map's element, 8 from a neuron; the last step's spikes do not come back
    assert found["rec"].event_driven
    assert found["rec"].synops.mean == pytest.approx((2 if convolved else 8) * sum(spikes[:3]))
    assert (found["rec"].macs_once, found["rec"].macs_every_step) == (0, 0)
    assert (found["unit"].macs_once, found["unit"].macs_every_step) == (4, 4)
    size = 2 * 36 if convolved else 48
    assert (found["enc"].macs_once, found["enc"].macs_every_step) == (size, 4 * size)


class Recurrent(nn.Module):
    def __init__(self, start: str) -> None:
        super().__init__()
        self.into, self.back = nn.Parameter(torch.randn(5, 8)), nn.Parameter(torch.randn(5, 5))
        self.h0 = nn.Parameter(torch.randn(5))
        self.start = start

    def forward(self, x: Tensor) -> Tensor:
        starts = {"rest": torch.zeros(x.shape[1], 5), "learnt": self.h0.expand(x.shape[1], 5)}
        state, states = starts[self.start], []
        for step in x:
            state = torch.tanh(step @ self.into.T + state @ self.back.T)
            states.append(state)
        return torch.stack(states)


@pytest.mark.parametrize("start", ["rest", "learnt"])
def test_a_recurrent_layer_multiplies_once_a_step(start: str) -> None:
    """4 steps of 5 x 5, however the first state came about, under both readings of a static image."""
    torch.manual_seed(0)
    model = nn.Sequential(
        Repeat(4), PerStep(nn.Linear(6, 8)), IF(v_threshold=0.3), Recurrent(start), PerStep(nn.Linear(5, 3))
    )
    back = places(model, torch.rand(5, 6) * 3)["3.back"]
    assert (back.macs_once, back.macs_every_step) == (100, 100)


class FromTheImage(nn.Module):
    """A cell whose first state is made of the image."""

    def __init__(self) -> None:
        super().__init__()
        self.start, self.cell, self.fire, self.out = nn.Linear(6, 5), nn.GRUCell(6, 5), Fires(), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        state, total = self.start(x), 0
        for _ in range(4):
            state = self.cell(x, state)
            total = total + self.out(self.fire(state * 9))
        return total


def test_the_first_of_a_loops_steps_is_one_of_them() -> None:
    torch.manual_seed(0)
    found = places(FromTheImage(), torch.rand(5, 6))
    assert (found["cell.weight_hh"].macs_once, found["cell.weight_hh"].macs_every_step) == (4 * 75, 4 * 75)
    assert (found["cell.weight_ih"].macs_once, found["cell.weight_ih"].macs_every_step) == (90, 4 * 90)


def test_a_weight_made_of_two_is_no_layer() -> None:
    """A product of two parameters is made once and stored; only what arrives at it is work."""

    class LowRank(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Parameter(torch.randn(7, 2)), nn.Parameter(torch.randn(2, 8))

        def forward(self, x: Tensor) -> Tensor:
            return x @ (self.a @ self.b).T

    torch.manual_seed(0)
    model = nn.Sequential(Repeat(4), PerStep(nn.Linear(6, 8)), IF(v_threshold=0.3), PerStep(LowRank())).eval()
    cost = measure_cost(model, (torch.rand(5, 6) * 3, LABELS))
    assert [item.name for item in cost.synapses] == ["1.0", "3.0"]
    assert cost.synapses[1].synops.mean == pytest.approx(7 * cost.neurons[0].spikes.mean)
    assert cost.neurons[0].spikes.mean > 0
    assert cost.left_out == ()


def test_one_neuron_at_two_places_is_refused_as_elsewhere() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.fire = nn.Linear(6, 8), nn.Linear(8, 8), Fires()

        def forward(self, x: Tensor) -> Tensor:
            total: Tensor | float = 0.0
            for _ in range(4):
                spikes = self.fire(self.a(x))
                total = total + self.fire(self.b(spikes))
            assert isinstance(total, Tensor)
            return total

    for ask in (lambda: measure_cost(Twice().eval(), (torch.rand(5, 6), LABELS)),
                lambda: reach(Twice(), torch.rand(2, 6))):  # fmt: skip
        with pytest.raises(ModelError, match="'fire' sees single steps and was called at 2 places"):
            ask()
