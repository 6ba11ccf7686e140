"""Layers that work on all steps in one call: run at every step, their products are no more than they are."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from isofire.errors import ModelError
from isofire.firing.cost import measure_cost
from isofire.neurons import LIF

STEPS, INPUTS, WIDE = 4, 12, 8
DATA = torch.rand(5, INPUTS, generator=torch.Generator().manual_seed(0)), torch.arange(5) % 3


class Net(nn.Module):
    """Currents [T, N, features] that a first part makes of static images."""

    def __init__(self, make: Callable[[Net, Tensor], Tensor], width: int = WIDE) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.make, self.fire, self.head = make, LIF(), nn.Linear(width, 3)
        self.into, self.wide = nn.Linear(INPUTS, WIDE), nn.Linear(INPUTS, WIDE * STEPS)
        self.mix, self.over = nn.Linear(STEPS, STEPS), nn.Conv1d(WIDE, WIDE, 3)
        self.of_each, self.when = nn.Parameter(torch.randn(STEPS, INPUTS, WIDE)), nn.Parameter(torch.rand(STEPS, 1, 1))
        self.image = nn.Conv2d(1, 2, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.fire(3 * self.make(self, x).contiguous()))


def steps(x: Tensor) -> Tensor:
    return x.expand(STEPS, *x.shape)


def coded(x: Tensor, *, large_first: bool) -> Tensor:
    """Each number once, at a step that its size tells."""
    size = x.sigmoid()
    at = ((1 - size if large_first else size) * STEPS).long().clamp(max=STEPS - 1)
    return torch.stack([(at == step).float() for step in range(STEPS)])


ALL_STEPS: dict[str, tuple[Callable[[Net, Tensor], Tensor], dict[str, tuple[int, int]]]] = {
    "over time": (
        lambda net, x: net.mix(steps(net.into(x)).permute(1, 2, 0)).permute(2, 0, 1),
        {"into": (96, 384), "mix": (128, 128)},
    ),
    "over time, steps that differ": (
        lambda net, x: net.mix((steps(net.into(x)) + net.when).permute(1, 2, 0)).permute(2, 0, 1),
        {"into": (96, 384), "mix": (128, 128)},
    ),
    "from the left": (
        lambda net, x: (net.mix.weight @ (steps(net.into(x)) + net.when).flatten(1)).unflatten(1, (len(x), WIDE)),
        {"into": (96, 384), "mix": (128, 128)},
    ),
    "convolved over time": (
        lambda net, x: net.over(F.pad((steps(net.into(x)) + net.when).permute(1, 2, 0), (2, 0))).permute(2, 0, 1),
        {"into": (96, 384), "over": (768, 768)},
    ),
    "all at once": (lambda net, x: net.wide(x).unflatten(1, (STEPS, WIDE)).transpose(0, 1), {"wide": (384, 384)}),
    "all at once, steps last": (
        lambda net, x: net.wide(x).unflatten(1, (WIDE, STEPS)).permute(2, 0, 1),
        {"wide": (384, 384)},
    ),
    "weights of each step": (
        lambda net, x: torch.einsum("ni,tio->tno", x, net.of_each),
        {"of_each": (384, 384), "(model)": (384, 384)},
    ),
    "one after the other": (
        lambda net, x: torch.stack([x @ weight for weight in net.of_each]),
        {"of_each": (384, 384)},
    ),
}
EACH_STEP: dict[str, Callable[[Net, Tensor], Tensor]] = {
    "the same at each": lambda net, x: steps(net.into(x)),
    "late": lambda net, x: torch.cat([torch.zeros(1, len(x), WIDE), steps(net.into(x))[1:]]),
    "a ramp": lambda net, x: steps(net.into(x)) * net.when,
    "largest first": lambda net, x: coded(net.into(x), large_first=True),
    "least first": lambda net, x: coded(net.into(x), large_first=False),
}


@pytest.mark.parametrize("name", ALL_STEPS)
def test_work_on_all_steps_is_not_taken_once_more_for_each(name: str) -> None:
    make, right = ALL_STEPS[name]
    cost = measure_cost(Net(make).eval(), DATA)
    found = {item.name: (item.macs_once, item.macs_every_step) for item in cost.synapses if item.name != "head"}
    assert found
    assert found.items() <= right.items()


@pytest.mark.parametrize("name", EACH_STEP)
def test_an_image_that_each_step_sees_is_worked_on_by_each(name: str) -> None:
    cost = measure_cost(Net(EACH_STEP[name]).eval(), DATA)
    assert (cost.synapses[0].macs_once, cost.synapses[0].macs_every_step) == (96, 384)


def test_places_of_a_network_that_refuses_the_changed_number_are_named() -> None:
    def make(net: Net, x: Tensor) -> Tensor:
        made = net.wide(x)
        if made.abs().max() > highest:
            raise ValueError("currents are too large")
        return made.unflatten(1, (STEPS, WIDE)).transpose(0, 1)

    highest = float("inf")
    net = Net(make).eval()
    highest = float(net.wide(DATA[0]).abs().max())
    cost = measure_cost(net, DATA)
    assert "wide" in " ".join(map(str, cost.left_out))


def test_maps_and_borders_that_no_step_sees() -> None:
    def make(net: Net, x: Tensor) -> Tensor:
        found = net.image(x.unflatten(1, (1, 3, 4)))
        return steps(F.max_pool2d(F.pad(found, (0, -1)), 1).flatten(1))

    cost = measure_cost(Net(make, 2).eval(), DATA)
    assert (cost.synapses[0].macs_once, cost.synapses[0].macs_every_step) == (36, 144)


def test_a_neuron_that_is_given_all_steps_weighs_them_once() -> None:
    neuron = pytest.importorskip("spikingjelly.activation_based.neuron")
    if not hasattr(neuron, "PSN"):
        pytest.skip("this version has no PSN")
    net = Net(lambda net, x: steps(net.into(x)))
    net.fire = neuron.PSN(T=STEPS)
    fire = next(item for item in measure_cost(net.eval(), DATA).synapses if item.name == "fire")
    assert (fire.macs_once, fire.macs_every_step) == (128, 128)


def test_parts_of_an_image_in_the_batch_are_told() -> None:
    class Patches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.into, self.fire, self.head = nn.Linear(3, WIDE), LIF(), nn.Linear(4 * WIDE, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.fire(steps(self.into(x.reshape(-1, 3)))).reshape(STEPS, len(x), -1))

    with pytest.raises(ModelError, match=r"each image is 4 there: .* \[T, N, 4, \.\.\.\]"):
        measure_cost(Patches().eval(), DATA)


class Stem(nn.Module):
    """Layers with ReLU before neurons, one after the other or side by side."""

    def __init__(self, depth: int, code: Callable[[Tensor], Tensor], *, wide: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.into = nn.ModuleList(nn.Linear(INPUTS, INPUTS) for _ in range(depth))
        self.code, self.wide, self.fire, self.head, self.forwards = code, wide, LIF(), nn.Linear(INPUTS, 3), 0

    def forward(self, x: Tensor) -> Tensor:
        self.forwards += 1
        found = [x]
        for layer in self.into:
            found.append(torch.relu(layer(x if self.wide else found[-1])))
        return self.head(self.fire(9 * self.code(torch.stack(found).sum(0) if self.wide else found[-1])))


def test_a_deep_stem_is_asked_as_few_times_as_a_shallow_one() -> None:
    """The network ran fifteen times for any depth before anybody asked, six of them with one image alone."""
    for code, most in ((steps, 20), (lambda x: steps(x) * torch.arange(STEPS)[:, None, None], 24)):
        net = Stem(10, code).eval()
        cost = measure_cost(net, DATA)
        assert net.forwards <= most
        assert [(s.macs_once, s.macs_every_step) for s in cost.synapses[:10]] == [(144, 576)] * 10
        assert not cost.left_out


def test_one_run_tells_of_many_layers_beside_each_other() -> None:
    net = Stem(20, steps, wide=True).eval()
    assert not measure_cost(net, DATA).left_out
    assert net.forwards <= 20


def test_layers_that_are_too_many_to_ask_are_named_and_count_at_each_step() -> None:
    net = Stem(20, lambda x: steps(x) * torch.arange(STEPS)[:, None, None], wide=True).eval()
    cost = measure_cost(net, DATA)
    named = {item.name for item in cost.left_out if item.of == "operations"}
    assert net.forwards <= 20 + 12
    assert named
    assert all(item.macs_every_step == 576 for item in cost.synapses if item.name in named)


class Patched(nn.Module):
    """Layers that see three parts of the image, one after the other, for all steps or each for some."""

    def __init__(self, depth: int, held: Callable[[list[Tensor]], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.into = nn.ModuleList(nn.Linear(INPUTS, INPUTS) for _ in range(depth))
        self.held, self.fire, self.head, self.forwards = held, LIF(), nn.Linear(INPUTS, 3), 0

    def forward(self, x: Tensor) -> Tensor:
        self.forwards += 1
        found = []
        for part in range(3):
            y = torch.roll(x, part, 1) * (1 + part)
            for layer in self.into:
                y = torch.tanh(layer(y))
            found.append(y)
        return self.head(self.fire(9 * self.held(found)))


def test_parts_that_all_steps_see_are_asked_of_as_few_layers_as_others() -> None:
    runs = []
    for depth in (1, 5, 20):
        net = Patched(depth, lambda found: steps(sum(found))).eval()
        cost = measure_cost(net, DATA)
        runs.append(net.forwards)
        named = {item.name for item in cost.left_out if item.of == "operations"}
        assert all(item.macs_every_step == 3 * 576 for item in cost.synapses[:depth])
        assert (len(named) > 0) == (depth > 12)
    assert runs[1] - runs[0] <= 2 * 4
    assert runs[2] - runs[0] <= 2 * 12


def test_parts_that_are_each_held_for_some_steps_are_named() -> None:
    net = Patched(1, lambda found: torch.stack([found[step % 3] for step in range(STEPS)])).eval()
    cost = measure_cost(net, DATA)
    assert [(item.name, item.of) for item in cost.left_out] == [("into.0", "operations")]
    assert cost.synapses[0].macs_every_step >= 576


def test_neurons_that_see_the_same_at_every_step_tell_nothing_of_what_goes_past_them() -> None:
    class Past(Net):
        def __init__(self) -> None:
            super().__init__(lambda _, x: x)
            self.first, self.between = LIF(), nn.Linear(WIDE, WIDE)

        def forward(self, x: Tensor) -> Tensor:
            found = steps(self.into(x))
            late = self.mix((found + self.when).permute(1, 2, 0)).permute(2, 0, 1)
            return self.head(self.fire(3 * (self.between(self.first(3 * found)) + late)))

    cost = measure_cost(Past().eval(), DATA)
    found = {item.name: (item.macs_once, item.macs_every_step) for item in cost.synapses}
    assert {"into": (96, 384), "mix": (128, 128)}.items() <= found.items()


class OfEachStep(nn.Module):
    """A layer of each step's own on a static image, or a first one of its own."""

    def __init__(self, make: Callable[[nn.ModuleList, Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.make, self.fire, self.head = make, LIF(), nn.Linear(WIDE, 3)
        self.layers = nn.ModuleList(nn.Linear(INPUTS, WIDE) for _ in range(STEPS))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.fire(3 * self.make(self.layers, x)))


ONE = INPUTS * WIDE
OF_EACH: dict[str, tuple[Callable[[nn.ModuleList, Tensor], Tensor], list[int]]] = {
    "stacked": (lambda layers, x: torch.stack([layer(x) for layer in layers]), [ONE] * STEPS),
    "the first alone": (
        lambda layers, x: torch.cat([layers[0](x)[None], layers[1](x).expand(STEPS - 1, -1, -1)]),
        [ONE, STEPS * ONE],
    ),
    "added up, the same at every step": (
        lambda layers, x: sum(layer(x) for layer in layers).expand(STEPS, -1, -1).contiguous(),
        [STEPS * ONE] * STEPS,
    ),
}


@pytest.mark.parametrize("name", OF_EACH)
def test_a_layer_of_each_steps_own_is_run_at_its_step(name: str) -> None:
    make, every = OF_EACH[name]
    cost = measure_cost(OfEachStep(make).eval(), DATA)
    found = {item.name: (item.macs_once, item.macs_every_step) for item in cost.synapses if item.name != "head"}
    assert found == {f"layers.{place}": (ONE, count) for place, count in enumerate(every)}
    assert cost.left_out == ()
