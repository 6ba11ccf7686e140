"""Multiplications of recordings and of static images, wherever the axis of time is however alike their parts."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from isofire.firing.cost import SynapseCost, measure_cost
from isofire.firing.cost.frames import holds_steps
from isofire.neurons import IF, LIF

STEPS, IMAGES = 4, 6
LABELS = torch.zeros(IMAGES, dtype=torch.int64)


def first_place(model: nn.Module, inputs: Tensor) -> SynapseCost:
    found = measure_cost(model.eval(), (inputs, LABELS))
    assert found.left_out == ()
    return found.synapses[0]


class Recording(nn.Module):
    """Linear layers over [N, T, F] at once, or step by step, or over steps that are laid on channels, [N, T * F]."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.first, self.neuron, self.last = nn.Linear(6, 8), IF(), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        if self.how == "last":
            x = x.transpose(1, 2)
        x = x.unflatten(1, (STEPS, 6)) if self.how == "channels" else x
        if self.how == "loop":
            currents = torch.stack([self.first(x[:, step]) for step in range(STEPS)])
        else:
            currents = self.first(x).transpose(0, 1)
        return self.last(self.neuron(currents))


@pytest.mark.parametrize("how", ["at once", "loop", "channels", "last"])
@pytest.mark.parametrize("silent", [False, True])
def test_frames_are_multiplied_once_each_and_no_frame_is_reused(how: str, silent: bool) -> None:
    torch.manual_seed(0)
    frames = torch.rand(IMAGES, STEPS, 6)
    if silent:
        frames[:, 1:3] = 0
    shaped = {"channels": frames.flatten(1), "last": frames.transpose(1, 2).contiguous()}.get(how, frames)
    place = first_place(Recording(how), shaped)
    assert place.macs_once == place.macs_every_step == STEPS * 6 * 8


class Parts(nn.Module):
    """Parts of a static image go through one layer, in a loop over time or once."""

    def __init__(self, parts: int, again: bool) -> None:
        super().__init__()
        self.parts, self.again = parts, again
        self.first, self.neuron, self.last = nn.Linear(6, 8), LIF(), nn.Linear(8 * parts, 3)

    def forward(self, x: Tensor) -> Tensor:
        if self.again:
            currents = torch.stack([self._encoded(x) for _ in range(STEPS)])
        else:
            currents = self._encoded(x).expand(STEPS, -1, -1)
        return self.last(self.neuron(currents))

    def _encoded(self, x: Tensor) -> Tensor:
        return torch.cat([self.first(x[:, part]) for part in range(self.parts)], 1)


@pytest.mark.parametrize("parts", [3, 5, 8])
@pytest.mark.parametrize("again", [False, True])
def test_blank_parts_of_an_image_are_multiplied_each(parts: int, again: bool) -> None:
    torch.manual_seed(0)
    images = torch.rand(IMAGES, parts, 6)
    images[:, ::2] = 0
    place = first_place(Parts(parts, again), images)
    assert (place.macs_once, place.macs_every_step) == (parts * 48, parts * 48 * STEPS)


@pytest.mark.parametrize("whole", [False, True])
def test_an_image_of_as_many_rows_as_steps_holds_no_steps(whole: bool) -> None:
    torch.manual_seed(0)
    images = torch.randint(9, (IMAGES, STEPS, 6)) if whole else torch.rand(IMAGES, STEPS, 6)

    class Static(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.neuron = nn.Linear(6, 8), LIF()

        def forward(self, x: Tensor) -> Tensor:
            return self.neuron(self.first(x.float()).mean(1).expand(STEPS, -1, -1))

    assert not holds_steps(Static().eval(), images, 0)
    assert holds_steps(Recording("at once").eval(), images.float(), 0)
