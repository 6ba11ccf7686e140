"""What is judged on a few images does not follow which images come first: blank ones, alike ones, or others."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from isofire.errors import ModelError
from isofire.firing import compare
from isofire.firing.cost import measure_cost
from isofire.firing.cost.bound import SynOpsDrifts
from isofire.firing.timing import compare_timing
from isofire.neurons import IF, LIF, Repeat

N, STEPS = 12, 4
LABELS = torch.arange(N) % 3


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(Repeat(STEPS), nn.Linear(6, 8), LIF(v_threshold=0.3), nn.Linear(8, 3)).eval()


def synops(model: nn.Module, inputs: Tensor, batch_size: int) -> SynOpsDrifts:
    found = compare(model, model, (inputs, LABELS), batch_size=batch_size).synops
    assert found is not None
    return found


FIRST = {
    "blank": lambda count: torch.zeros(count, 6), "events": lambda count: (torch.rand(count, 6) > 0.5).float(),
    "grey": lambda count: torch.full((count, 6), 2.0), "signed": lambda count: torch.randint(-1, 2, (count, 6)).float(),
}  # fmt: skip


@pytest.mark.parametrize("batch_size", [1, 2, 5, 64])
@pytest.mark.parametrize("count", [1, 2, 5, N - 1])
@pytest.mark.parametrize("first", FIRST)
def test_real_images_drive_no_layer_by_events(first: str, count: int, batch_size: int) -> None:
    model, inputs = network(), torch.rand(N, 6) * 2
    inputs[:count] = FIRST[first](count)
    assert synops(model, inputs, batch_size).by_input == ()
    place = measure_cost(model, (inputs, LABELS), batch_size=batch_size).synapses[0]
    assert (place.event_driven, place.macs_once, place.synops.max) == (False, 48, 0)


@pytest.mark.parametrize("batch_size", [1, 64])
@pytest.mark.parametrize("blank", [0, 3])
def test_events_do(blank: int, batch_size: int) -> None:
    inputs = (torch.rand(N, 6) > 0.5).float()
    inputs[:blank] = 0
    (item,) = synops(network(), inputs, batch_size).by_input
    # 4 steps of 6 x 8 synapses of inputs, and of 8 x 3 of neurons
    assert (item.name, item.share) == ("1", pytest.approx(48 / 72))


class Recording(nn.Module):
    """[N, T, F], step by step."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.neuron, self.last = nn.Linear(6, 8), IF(), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.neuron(self.first(x).transpose(0, 1)))


@pytest.mark.parametrize("batch_size", [1, 2, 64])
@pytest.mark.parametrize("blank", [0, 2, 7])
def test_recordings_are_told_from_images(blank: int, batch_size: int) -> None:
    torch.manual_seed(0)
    frames = torch.rand(N, STEPS, 6)
    # frames that are alike are worked on each
    frames[:, 2:] = frames[:, :1]
    frames[:blank] = 0
    place = measure_cost(Recording().eval(), (frames, LABELS), batch_size=batch_size).synapses[0]
    assert place.macs_once == place.macs_every_step == STEPS * 48


class Beside(nn.Module):
    """Images are measured against those beside them."""

    def __init__(self) -> None:
        super().__init__()
        self.net = network()

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x * x.abs().softmax(0))


@pytest.mark.parametrize("verb", [compare, compare_timing, lambda a, _, data, **more: measure_cost(a, data, **more)])
@pytest.mark.parametrize(("blank", "batch_size"), [(0, 64), (2, 64), (6, 64), (4, 2)])
def test_what_follows_the_batch_is_refused(verb, blank: int, batch_size: int) -> None:
    inputs = torch.rand(N, 6) * 2
    inputs[:blank] = 0
    model = Beside().eval()
    with pytest.raises(ModelError, match="gives an image other numbers beside other images"):
        verb(model, model, (inputs, LABELS), batch_size=batch_size)


class Chooses(nn.Module):
    """Blank images go another way."""

    def __init__(self) -> None:
        super().__init__()
        self.steps, self.few, self.many = (
            Repeat(STEPS),
            nn.Linear(6, 8),
            nn.Sequential(nn.Linear(6, 9), nn.Linear(9, 8)),
        )
        self.neuron, self.last = LIF(), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        layer = self.many if bool(x.any()) else self.few
        return self.last(self.neuron(self.steps(layer(x))))


@pytest.mark.parametrize("blank", [0, 2, 4, 6])
def test_a_way_that_only_blank_images_take_is_told(blank: int) -> None:
    torch.manual_seed(0)
    inputs = torch.rand(N, 6)
    inputs[:blank] = 0
    model = Chooses().eval()
    found = compare(model, model, (inputs, LABELS), batch_size=2)
    assert (found.synops is None) == bool(blank)
    assert blank == 0 or "take different ways" in str(found.unknown_synops)
