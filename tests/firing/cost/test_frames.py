"""Multiplications of recordings and of static images, wherever the axis of time is however alike their parts."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from tests.bare import BareAdapter
from torch import Tensor, nn

from isofire.adapters import Layout, register, unregister
from isofire.errors import ModelError
from isofire.firing.cost import SynapseCost, measure_cost
from isofire.firing.cost.counting.frames import holds_steps
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


@pytest.mark.parametrize("parts", [3, STEPS, 5, 8])
@pytest.mark.parametrize("again", [False, True])
def test_blank_parts_of_an_image_are_multiplied_each(parts: int, again: bool) -> None:
    torch.manual_seed(0)
    images = torch.rand(IMAGES, parts, 6)
    images[:, ::2] = 0
    place = first_place(Parts(parts, again), images)
    assert (place.macs_once, place.macs_every_step) == (parts * 48, parts * 48 * STEPS)


class AsMany(nn.Module):
    """A layer is called as often as there are steps before any neuron: on parts of an image, or on its steps."""

    def __init__(self, steps: bool, kind: str) -> None:
        super().__init__()
        self.steps, self.kind = steps, kind
        self.first, self.neuron = nn.Linear(6, 8), IF()
        self.last = nn.Linear(8 if steps else 8 * STEPS, 3)
        if kind == "normed":
            self.first = nn.utils.parametrizations.weight_norm(self.first)
        if kind == "parameter":
            self.first, self.w = nn.Identity(), nn.Parameter(torch.randn(8, 6))
        if kind == "inside":
            self.first = nn.Sequential(self.first)

    def _apply_first(self, x: Tensor) -> Tensor:
        return torch.nn.functional.linear(x, self.w) if self.kind == "parameter" else self.first(x)

    def forward(self, x: Tensor) -> Tensor:
        if self.steps:
            # an encoding with another phase at each step
            currents = torch.stack([self._apply_first(x[:, 0] * (1 + phase)) for phase in range(STEPS)])
        else:
            currents = torch.cat([self._apply_first(x[:, part]) for part in range(STEPS)], 1).expand(STEPS, -1, -1)
        return self.last(self.neuron(currents))


@pytest.mark.parametrize("kind", ["module", "normed", "inside", "parameter"])
@pytest.mark.parametrize("steps", [False, True])
def test_as_many_parts_of_an_image_as_steps_are_no_steps(steps: bool, kind: str) -> None:
    """4 calls of 6 x 8: each is worked on in every step, or is a step."""
    torch.manual_seed(0)
    place = first_place(AsMany(steps, kind), torch.rand(IMAGES, STEPS + 1, 6))
    assert (place.macs_once, place.macs_every_step) == (STEPS * 48, STEPS * 48 * (1 if steps else STEPS))
    assert len(place.events_per_step) == (STEPS if steps else 1)


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


class Picky(nn.Module):
    """Another network's forward, on inputs that pass a check of its own alone."""

    def __init__(self, inner: nn.Module, takes: Callable[[Tensor], bool]) -> None:
        super().__init__()
        self.inner, self.takes = inner, takes

    def forward(self, x: Tensor) -> Tensor:
        if not self.takes(x):
            raise ValueError("not such inputs")
        return self.inner(x)


def _one_of_each_row(x: Tensor) -> bool:
    return bool((x.sum(-1) == 1).all())


def test_a_network_that_takes_some_inputs_alone_has_its_frames_told() -> None:
    torch.manual_seed(0)
    of_all = nn.functional.one_hot(torch.randint(6, (IMAGES, STEPS)), 6)
    frames = 0.75 * of_all + 0.25 * of_all.roll(1, 2)
    for inner in (Recording("at once"), Recording("loop")):
        place = first_place(Picky(inner, _one_of_each_row), frames)
        assert place.macs_once == place.macs_every_step == first_place(inner, frames).macs_once == STEPS * 6 * 8


def test_a_network_that_takes_its_own_data_alone_is_refused() -> None:
    torch.manual_seed(0)
    frames = torch.rand(IMAGES, STEPS, 6)
    known = {tuple(row.flatten().tolist()) for row in frames}
    model = Picky(Recording("at once"), lambda x: all(tuple(row.flatten().tolist()) in known for row in x))
    with pytest.raises(ModelError, match=r"last 1 along axis 1, on which Picky fails.* not such inputs"):
        measure_cost(model.eval(), (frames, LABELS))


def test_a_network_that_fails_on_the_inputs_themselves_says_so() -> None:
    with pytest.raises(ModelError, match="not such inputs"):
        holds_steps(Picky(Recording("at once"), lambda x: False).eval(), torch.rand(IMAGES, STEPS, 6), 0)


def test_a_recording_that_is_left_early_holds_steps() -> None:
    class Early(Recording):
        """Stops when the current of a step is small."""

        def forward(self, x: Tensor) -> Tensor:
            spikes = []
            for step in range(STEPS):
                spikes.append(self.neuron(self.first(x[:, step]).unsqueeze(0)))
                if step and x[:, step].sum() > 5:
                    break
            return self.last(torch.cat(spikes))

    frames = torch.full((IMAGES, STEPS, 6), 0.1)
    frames[:, -1] = 1.0
    assert holds_steps(Early("loop").eval(), frames, 0)


def test_an_image_that_comes_late_holds_no_steps_where_some_inputs_are_refused() -> None:
    class Late(nn.Module):
        """Shows an image after a pause."""

        def __init__(self) -> None:
            super().__init__()
            self.first, self.neuron = nn.Linear(6, 8), IF()

        def forward(self, x: Tensor) -> Tensor:
            current = self.first(x).mean(1)
            return self.neuron(torch.stack([0 * current, 0 * current, current, current]))

    torch.manual_seed(0)
    images = torch.rand(IMAGES, STEPS, 6)
    half = Picky(Late(), lambda x: float((x == images[: len(x)]).float().mean()) > 0.5)
    assert not holds_steps(half.eval(), images, 0)


class FromTheEnd(nn.Module):
    """Recordings [N, T, F]; one layer sees the steps from the last to the first, as in a bidirectional network."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.fire, self.back, self.last = nn.Linear(6, 8), LIF(), LIF(), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        currents = 3 * self.first(x.transpose(0, 1))
        return self.last(torch.cat([self.fire(currents), self.back(currents.flip(0)).flip(0)], -1))


class Acausal(nn.Module):
    """Neurons whose first answer is to what they are given last."""

    def forward(self, x: Tensor) -> Tensor:
        return (x.sum(0, keepdim=True) + x > 1).float()


@pytest.fixture
def acausal() -> Iterator[None]:
    register(Acausal, BareAdapter(Layout.TIME_FIRST))
    yield
    unregister(Acausal)


class AllSteps(nn.Module):
    def __init__(self, *, static: bool) -> None:
        super().__init__()
        self.static, self.first, self.into = static, nn.Linear(6, 8), nn.Linear(6, 8 * STEPS)
        self.one, self.middle, self.two, self.last = Acausal(), nn.Linear(8, 8), Acausal(), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        currents = self.into(x).unflatten(1, (STEPS, 8)) if self.static else self.first(x)
        return self.last(self.two(3 * self.middle(self.one(3 * currents.transpose(0, 1)))))


@pytest.mark.parametrize("seed", range(6))
def test_frames_are_told_whatever_neurons_make_of_later_ones(seed: int, acausal: None) -> None:
    torch.manual_seed(seed)
    frames = torch.rand(IMAGES, STEPS, 6)
    for model in (FromTheEnd(), AllSteps(static=False)):
        place = first_place(model, frames)
        assert place.macs_once == place.macs_every_step == STEPS * 6 * 8


@pytest.mark.parametrize("seed", range(6))
def test_currents_of_all_steps_are_told_whatever_neurons_make_of_them(seed: int, acausal: None) -> None:
    torch.manual_seed(seed)
    place = first_place(AllSteps(static=True), torch.rand(IMAGES, 6))
    assert place.macs_once == place.macs_every_step == STEPS * 6 * 8


class Stranger(nn.Module):
    """Integrates and fires over all steps, and is no neuron that isofire knows."""

    def forward(self, x: Tensor) -> Tensor:
        v, spikes = torch.zeros_like(x[0]), []
        for step in x:
            v = 0.8 * v + step
            spikes.append((v >= 1.5).float())
            v = v - 1.5 * spikes[-1]
        return torch.stack(spikes)


class BesideStrangers(nn.Module):
    """A static image comes to known neurons at once, and to others behind neurons of one's own."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.own, self.middle, self.last = nn.Linear(6, 8), Stranger(), nn.Linear(8, 8), nn.Linear(8, 3)
        self.near, self.far = LIF(), LIF()

    def forward(self, x: Tensor) -> Tensor:
        currents = 3 * self.first(x).expand(STEPS, -1, -1)
        return self.last(self.near(currents) + self.far(3 * self.middle(self.own(currents))))


@pytest.mark.parametrize("seed", range(8))
def test_what_strangers_let_through_late_makes_no_frames_of_an_image(seed: int) -> None:
    torch.manual_seed(seed)
    cost = measure_cost(BesideStrangers().eval(), (torch.rand(IMAGES, 6), LABELS))
    assert {item.name for item in cost.left_out} == {"own"}
    assert (cost.synapses[0].macs_once, cost.synapses[0].macs_every_step) == (48, STEPS * 48)
