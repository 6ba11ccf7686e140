"""Multiply-accumulates worked on once are those of the inputs that differ within a forward pass."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tests.firing.cost.fires import Fires, fires  # noqa: F401
from torch import Tensor, nn

from isofire.firing.cost import SynapseCost, measure_cost
from isofire.neurons import LIF

IMAGES, INPUTS, OUTPUTS = 6, 12, 7
WEIGHTS = INPUTS * OUTPUTS
LABELS = torch.zeros(IMAGES, dtype=torch.int64)
Shown = Callable[[Tensor, int], Tensor]


class Steps(nn.Module):
    """A hand-written loop over steps, each with what `show` gives of the image."""

    def __init__(self, show: Shown, steps: int) -> None:
        super().__init__()
        self.show, self.steps = show, steps
        self.first, self.fire, self.last = nn.Linear(INPUTS, OUTPUTS), Fires(), nn.Linear(OUTPUTS, 3)

    def forward(self, x: Tensor) -> Tensor:
        total = torch.zeros(len(x), 3)
        for step in range(self.steps):
            total = total + self.last(self.fire(3 * self.first(self.show(x, step))))
        return total


class AllAtOnce(Steps):
    """The same steps [T, N, ...] in one call of each layer."""

    def __init__(self, show: Shown, steps: int) -> None:
        super().__init__(show, steps)
        self.fire = LIF()

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.fire(3 * self.first(torch.stack([self.show(x, step) for step in range(self.steps)]))))


class CurrentsFirst(AllAtOnce):
    """All calls of the first layer before any neuron runs."""

    def forward(self, x: Tensor) -> Tensor:
        currents = torch.stack([self.first(self.show(x, step)) for step in range(self.steps)])
        return self.last(self.fire(3 * currents))


def first_place(model: nn.Module, images: Tensor) -> SynapseCost:
    cost = measure_cost(model.eval(), (images, LABELS))
    assert all(item.of == "states" for item in cost.left_out)
    return cost.synapses[0]


def images(blank: int = 0) -> Tensor:
    found = torch.rand(IMAGES, INPUTS, generator=torch.Generator().manual_seed(1)) - 0.3
    found[:blank] = 0
    return found


SHOWN: dict[str, tuple[Shown, int]] = {
    "always": (lambda x, _: x, 8),
    **{f"masked after {n} of {of}": (lambda x, step, n=n: x * (step < n), of)
       for n, of in ((4, 8), (5, 8), (7, 8), (8, 12))},
    "zeros after 5 of 8": (lambda x, step: x if step < 5 else torch.zeros_like(x), 8),
    "from step 3 on": (lambda x, step: x * (step >= 3), 8),
    "ramp": (lambda x, step: x * min(1, step / 3), 8),
    "7 looks and a mirrored one": (lambda x, step: x if step < 7 else x.flip(1), 8),
    "image and mirror in turns": (lambda x, step: x.flip(1) if step % 3 else x, 8),
    "pauses": (lambda x, step: -x * (step % 3 == 0), 7),
    "two kinds of nothing": (lambda x, step: (x, 0 * x, -0.0 * x.flip(1))[min(step, 2)], 5),
    "each step another": (lambda x, step: x.roll(step, 1), 8),
    "noise of the network's own": (lambda x, _: x + torch.rand(x.shape[1:]), 6),
}  # fmt: skip


@pytest.mark.parametrize("blank", [0, 3])
@pytest.mark.parametrize("form", [Steps, AllAtOnce, CurrentsFirst])
@pytest.mark.parametrize("name", SHOWN)
def test_each_input_that_differs_counts_once_in_every_form(name: str, form: type[Steps], blank: int) -> None:
    """Blank images among the data, as blank as the pauses are, change nothing."""
    torch.manual_seed(0)
    show, steps = SHOWN[name]
    shown = np.stack([show(images()[:1], step).numpy()[0] for step in range(steps)])
    differ = len(np.unique(shown + 0.0, axis=0))
    found = first_place(form(show, steps), images(blank))
    assert (found.macs_once, found.macs_every_step) == (differ * WEIGHTS, steps * WEIGHTS)


def test_showing_an_image_for_longer_is_never_cheaper() -> None:
    torch.manual_seed(0)
    costs = [first_place(Steps(lambda x, step, n=n: x * (step < n), 6), images()).macs_once for n in range(1, 7)]
    # the image and the blank; the image alone where it is always shown
    assert costs == [2 * WEIGHTS] * 5 + [WEIGHTS]


class OtherWeights(Steps):
    """The image meets weights that are not the same at each step: made anew, or written to."""

    def __init__(self, how: str) -> None:
        super().__init__(lambda x, _: x, 4)
        self.how = how
        self.register_buffer("fixed", torch.rand(OUTPUTS, INPUTS))
        self.gain = torch.tensor([1.0, 1.5, 1.0, 2.0])

    def forward(self, x: Tensor) -> Tensor:
        total = torch.zeros(len(x), 3)
        kept = self.fixed.clone()
        for step in range(self.steps):
            if self.how == "made":
                current = F.linear(x, self.first.weight * self.gain[step])
            else:
                self.fixed.mul_(self.gain[step] if step in (1, 3) else 1 / self.gain[step - 1] if step else 1)
                current = F.linear(x, self.fixed)
            total = total + self.last(self.fire(3 * current))
        self.fixed.copy_(kept)
        return total


@pytest.mark.parametrize(("how", "differ"), [("made", 3), ("written", 4)])
def test_nothing_is_reused_of_weights_that_change(how: str, differ: int) -> None:
    torch.manual_seed(0)
    found = first_place(OtherWeights(how), images())
    assert (found.macs_once, found.macs_every_step) == (differ * WEIGHTS, 4 * WEIGHTS)


class BothWays(nn.Module):
    """A square matrix and its transpose see the same image."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.fire = nn.Parameter(torch.randn(INPUTS, INPUTS)), LIF()
        self.last = nn.Linear(INPUTS, 3)

    def forward(self, x: Tensor) -> Tensor:
        current = x @ self.weight + x @ self.weight.T
        return self.last(self.fire(current.unsqueeze(0).expand(3, *current.shape)))


def test_a_matrix_and_its_transpose_are_two_products() -> None:
    torch.manual_seed(0)
    found = first_place(BothWays(), images())
    assert (found.macs_once, found.macs_every_step) == (2 * INPUTS**2, 3 * 2 * INPUTS**2)


class Branches(nn.Module):
    """A layer sees the same image twice, and every step what both gave."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.steps = steps
        self.first, self.fire, self.last = nn.Linear(INPUTS, OUTPUTS), LIF(), nn.Linear(OUTPUTS, 3)

    def forward(self, x: Tensor) -> Tensor:
        current = self.first(x).tanh() + self.first(x)
        return self.last(self.fire(current.unsqueeze(0).expand(self.steps, *current.shape)))


@pytest.mark.parametrize("steps", [2, 3, 4])
def test_two_branches_are_no_two_steps(steps: int) -> None:
    torch.manual_seed(0)
    found = first_place(Branches(steps), images())
    assert (found.macs_once, found.macs_every_step) == (WEIGHTS, 2 * steps * WEIGHTS)


class OnlyWhileShown(CurrentsFirst):
    """The first layer is not called where nothing is shown."""

    def forward(self, x: Tensor) -> Tensor:
        currents = [self.first(x) for _ in range(5)]
        return self.last(self.fire(3 * torch.stack([*currents, *[torch.zeros_like(currents[0])] * 3])))


def test_steps_at_which_a_layer_is_not_called_cost_nothing() -> None:
    torch.manual_seed(0)
    found = first_place(OnlyWhileShown(lambda x, _: x, 8), images())
    assert (found.macs_once, found.macs_every_step) == (WEIGHTS, 5 * WEIGHTS)


class Particular(Steps):
    """Refuses images that hold anything but thirds."""

    def forward(self, x: Tensor) -> Tensor:
        if not torch.equal(x * 3, (x * 3).round()):
            raise ValueError("no thirds")
        return super().forward(x)


def test_networks_that_take_no_random_numbers_are_told_by_their_images() -> None:
    torch.manual_seed(0)
    thirds = torch.randint(0, 3, (IMAGES, INPUTS)) / 3
    found = first_place(Particular(lambda x, step: x * (step < 5), 8), thirds)
    assert (found.macs_once, found.macs_every_step) == (2 * WEIGHTS, 8 * WEIGHTS)


class Quarters(nn.Module):
    """Four parts of an image go through one layer; only some numbers are taken."""

    def __init__(self, takes: Callable[[Tensor], bool]) -> None:
        super().__init__()
        self.takes = takes
        self.first, self.fire, self.last = nn.Linear(4, 8), LIF(), nn.Linear(32, 3)

    def forward(self, x: Tensor) -> Tensor:
        if not self.takes(x):
            raise ValueError("not such images")
        current = torch.cat([self.first(x[:, 4 * part : 4 * part + 4]) for part in range(4)], 1)
        return self.last(self.fire(current.expand(3, *current.shape)))


def eight_bit() -> Tensor:
    """Of which the first and last quarters are blank."""
    found = torch.randint(0, 256, (IMAGES, 16), generator=torch.Generator().manual_seed(2)) / 255
    found[:, :4] = found[:, 12:] = 0
    return found


def test_parts_that_are_blank_by_chance_count_each_where_a_network_takes_some_numbers_alone() -> None:
    def takes(x: Tensor) -> bool:
        return torch.equal(x, (x * 255).round() / 255)

    torch.manual_seed(0)
    cost = measure_cost(Quarters(takes).eval(), (eight_bit(), LABELS))
    assert (cost.synapses[0].macs_once, cost.left_out) == (4 * 4 * 8, ())


def test_what_equal_numbers_alone_tell_is_named() -> None:
    torch.manual_seed(0)
    cost = measure_cost(Quarters(lambda x: bool((x[:, :4] == 0).all())).eval(), (eight_bit(), LABELS))
    (left,) = cost.left_out
    assert (left.name, left.of) == ("first", "operations")
    assert "told by equal numbers alone" in left.reason
