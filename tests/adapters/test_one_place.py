"""A neuron of single steps at two places of a network is told, however the network is written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tests.adapters.stepping import Step, registered  # noqa: F401
from torch import Tensor, nn

import isofire
from isofire.adapters import OverTime
from isofire.errors import ModelError
from isofire.firing.cost import measure_cost
from isofire.firing.timing import compare_timing

T = 3


class Base(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.out = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 3)
        self.n, self.other, self.act = Step(), Step(), nn.ReLU()
        self.norms = nn.ModuleList(nn.BatchNorm1d(6) for _ in range(T))
        self.stack = nn.Sequential(self.a, self.n, self.b, self.n)


def shared(run: Callable[[Base, Tensor], Any], keep: tuple[str, ...] = ()) -> nn.Module:
    """A network with one neuron `n`, run as `run` says."""

    class Made(Base):
        def __init__(self) -> None:
            super().__init__()
            for name in {"other", "stack", "norms"} - set(keep):
                delattr(self, name)

        def forward(self, x: Tensor) -> Any:
            return run(self, x)

    return Made()


def one_line(net: Base, x: Tensor) -> Tensor:
    return torch.stack([net.out(net.n(net.b(net.n(net.a(x))))) for _ in range(T)])


def side_by_side(net: Base, x: Tensor) -> Tensor:
    return torch.stack([net.out(net.n(net.a(x)) + net.n(net.b(x))) for _ in range(T)])


def loop_over_layers(net: Base, x: Tensor) -> Tensor:
    steps = []
    for _ in range(T):
        y = x
        for layer in (net.a, net.b):
            y = net.n(layer(y))
        steps.append(net.out(y))
    return torch.stack(steps)


def layer_by_layer(net: Base, x: Tensor) -> Tensor:
    y = [x] * T
    for layer in (net.a, net.b):
        y = [net.n(layer(step)) for step in y]
    return torch.stack([net.out(step) for step in y])


def through_helper(net: Base, x: Tensor) -> Tensor:
    def fire(y: Tensor) -> Tensor:
        return net.n(y)

    return torch.stack([net.out(fire(net.b(fire(net.a(x))))) for _ in range(T)])


def behind_one_activation(net: Base, x: Tensor) -> Tensor:
    steps = []
    for _ in range(T):
        y = x
        for layer in (net.a, net.b):
            y = net.n(net.act(layer(y)))
        steps.append(net.out(y))
    return torch.stack(steps)


def by_sequential(net: Base, x: Tensor) -> Tensor:
    return torch.stack([net.out(net.stack(x)) for _ in range(T)])


SHARED = {
    "one line": (one_line, ()),
    "side by side": (side_by_side, ()),
    "a loop over layers": (loop_over_layers, ()),
    "layer by layer": (layer_by_layer, ()),
    "through a helper": (through_helper, ()),
    "behind one activation": (behind_one_activation, ()),
    "a sequential": (by_sequential, ("stack",)),
}
LABELS = torch.zeros(8, dtype=torch.long)


@pytest.mark.parametrize("form", SHARED)
def test_one_neuron_for_two_layers_is_told_however_it_is_written(form: str) -> None:
    run, keep = SHARED[form]
    x = torch.rand(8, 6)
    told = "neuron '(n|stack.1)' sees single steps and (was called at 2 places|stands more than once in 'stack')"
    for measure in (isofire.compare, compare_timing):
        model = shared(run, keep)
        with pytest.raises(ModelError, match=told):
            measure(model, model, (x, LABELS))


class Scripted(nn.Module):
    """A neuron behind layers of a list, on one line."""

    def __init__(self, layers: int, script: bool, before: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        made = [nn.Linear(6, 6) for _ in range(layers)]
        self.layers = nn.ModuleList(torch.jit.script(layer) if script else layer for layer in made)
        self.n, self.out, self.before = Step(), nn.Linear(6, 3), before

    def step(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = self.n(layer(x))
        return self.out(x)

    def forward(self, x: Tensor) -> Tensor:
        steps = []
        if self.before:
            steps.append(self.step(x))
        for _ in range(T):
            steps.append(self.step(x))
        return torch.stack(steps)


class Listed(nn.Module):
    """Layers that are parameters, on one line, before one neuron."""

    def __init__(self, layers: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.weights = nn.ParameterList(torch.rand(6, 6) for _ in range(layers))
        self.n, self.out = Step(), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        steps = []
        for _ in range(T):
            y = x
            for weight in self.weights:
                y = self.n(nn.functional.linear(y, weight))
            steps.append(self.out(y))
        return torch.stack(steps)


class Unlike(Listed):
    """A module and a parameter on one line before one neuron, the latter multiplied in a way of its own."""

    def __init__(self, way: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__(1)
        self.a, self.way = nn.Linear(6, 6), way

    def forward(self, x: Tensor) -> Tensor:
        steps = []
        for _ in range(T):
            y = x
            for layer in (self.a, lambda z: self.way(z, self.weights[0])):
                y = self.n(layer(y))
            steps.append(self.out(y))
        return torch.stack(steps)


UNLIKE: list[Callable[[Tensor, Tensor], Tensor]] = [
    lambda z, w: z @ w,
    lambda z, w: nn.functional.linear(z, w.abs() / w.sum()),
    lambda z, w: torch.einsum("ni,ij->nj", z, w.t()),
    lambda z, w: (z[:, None] * w).sum(-1),
]


@pytest.mark.parametrize("way", UNLIKE)
def test_a_module_and_a_parameter_are_two_places(way: Callable[[Tensor, Tensor], Tensor]) -> None:
    for measured in (measure_cost, lambda net, given: isofire.compare(net, net, given)):
        with pytest.raises(ModelError, match="'n' sees single steps and was called at 2 places"):
            measured(Unlike(way).eval(), (torch.rand(8, 6), LABELS))


class Factors(Listed):
    """A factor, or a mask, changes with the step, and is no layer."""

    def __init__(self, change: Callable[[Any, int], Tensor]) -> None:
        super().__init__(1)
        self.a, self.change = nn.Linear(6, 6), change
        self.gains = nn.ParameterList(torch.rand(1, 6) for _ in range(2))
        self.spread = nn.ParameterList(torch.rand(2, 3) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([self.out(self.n(self.a(x) * self.change(self, step))) for step in range(4)])


CHANGES: list[Callable[[Any, int], Tensor]] = [
    lambda net, step: net.gains[step % 2],
    lambda net, step: net.gains[step // 2],
    lambda net, step: net.spread[step // 2].flatten(),
    lambda net, step: (net.spread[step % 2] > 0.5).flatten(),
]


@pytest.mark.parametrize("change", CHANGES)
def test_factors_and_masks_that_change_with_the_step_are_no_places(change: Callable[[Any, int], Tensor]) -> None:
    given = torch.rand(8, 6), LABELS
    assert isofire.firing.observe(Factors(change), given).counts.steps == 4
    assert measure_cost(Factors(change).eval(), given).T == 4


class Between(Listed):
    """Something of the network's own comes between the layers of a list and one neuron."""

    def __init__(self, between: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__(1)
        self.layers = nn.ModuleList(nn.Linear(6, 6) for _ in range(2))
        self.between, self.scale = between, nn.Parameter(torch.rand(6))
        self.mean = nn.Buffer(torch.rand(6))

    def forward(self, x: Tensor) -> Tensor:
        steps = []
        for _ in range(T):
            y = x
            for layer in self.layers:
                y = self.n(self.between(self, layer(y)))
            steps.append(self.out(y))
        return torch.stack(steps)


@pytest.mark.parametrize(
    "between", [lambda net, y: y * net.scale, lambda net, y: y - net.mean, lambda net, y: y * net.scale[0].item()]
)
def test_what_comes_between_a_layer_and_a_neuron_hides_no_place(between: Callable[[Any, Tensor], Tensor]) -> None:
    with pytest.raises(ModelError, match="'n' sees single steps and was called at 2 places"):
        isofire.compare(net := Between(between), net, (torch.rand(8, 6), LABELS))


class Sometimes(Listed):
    """A number of the network's own is added, or looked at, in some of the steps."""

    def __init__(self, looked_at: bool) -> None:
        super().__init__(1)
        self.a, self.looked_at, self.hint = nn.Linear(6, 6), looked_at, nn.Parameter(torch.rand(6))

    def forward(self, x: Tensor) -> Tensor:
        steps = []
        for step in range(4):
            y = self.a(x)
            if step % 2 and self.looked_at:
                self.hint.norm()
            elif step % 2:
                y = y + self.hint
            steps.append(self.out(self.n(y)))
        return torch.stack(steps)


@pytest.mark.parametrize("looked_at", [False, True])
def test_an_offset_of_some_steps_is_no_place(looked_at: bool) -> None:
    assert isofire.firing.observe(Sometimes(looked_at), (torch.rand(8, 6), LABELS)).counts.steps == 4


@pytest.mark.parametrize("layers", [2, 3])
def test_scripted_layers_are_places_too(layers: int) -> None:
    for script in (False, True):
        model = Scripted(layers, script).eval()
        told = f"'n' sees single steps and was called at {layers} places"
        with pytest.raises(ModelError, match=told):
            measure_cost(model, (torch.rand(8, 6), LABELS))
        with pytest.raises(ModelError, match=told):
            isofire.compare(model, model, (torch.rand(8, 6), LABELS))


@pytest.mark.parametrize("before", [False, True])
def test_one_scripted_layer_is_one_place(before: bool) -> None:
    counted = []
    for script in (False, True):
        model = Scripted(1, script, before).eval()
        with torch.no_grad():
            model.layers[0].weight.abs_()
        counted.append(measure_cost(model, (torch.rand(8, 6, generator=torch.Generator().manual_seed(0)), LABELS)))
    assert counted[0].T == counted[1].T == T + before
    assert counted[0].synops == counted[1].synops


def test_parameters_are_places_too() -> None:
    images = torch.rand(8, 6)
    assert isofire.firing.observe(Listed(1), (images, LABELS)).counts.steps == T
    with pytest.raises(ModelError, match="'n' sees single steps and was called at 3 places"):
        isofire.compare(Listed(3), Listed(3), (images, LABELS))


def test_a_net_of_one_step_that_shares_its_neuron_is_told() -> None:
    net = shared(lambda net, x: net.out(net.n(net.b(net.n(net.a(x))))))
    model = OverTime(net, T)
    with pytest.raises(ModelError, match=r"'net.n' sees single steps and was called at 2 places"):
        isofire.compare(model, model, (torch.rand(8, 6), LABELS))


def norm_per_step(net: Base, x: Tensor) -> Tensor:
    return torch.stack([net.out(net.n(norm(net.a(x)))) for norm in net.norms])


def normed(norm: nn.Module, neuron: nn.Module, y: Tensor) -> Tensor:
    return neuron(norm(y))


def norm_given_first(net: Base, x: Tensor) -> Tensor:
    return torch.stack([net.out(normed(norm, net.n, net.a(x))) for norm in net.norms])


def other_first_step(net: Base, x: Tensor) -> Tensor:
    steps = []
    for t in range(T):
        y = net.a(x) if t else net.b(x)
        steps.append(net.out(net.n(y)))
    return torch.stack(steps)


def two_neurons(net: Base, x: Tensor) -> Tensor:
    return torch.stack([net.out(net.other(net.b(net.n(net.a(x))))) for _ in range(T)])


def recurrent(net: Base, x: Tensor) -> Tensor:
    spikes, steps = torch.zeros(len(x), 6), []
    for _ in range(T):
        spikes = net.n(net.a(x) + net.b(spikes))
        steps.append(net.out(spikes))
    return torch.stack(steps)


@pytest.mark.parametrize(
    ("run", "keep"),
    [
        (norm_per_step, ("norms",)),
        (norm_given_first, ("norms",)),
        (other_first_step, ()),
        (two_neurons, ("other",)),
        (recurrent, ()),
    ],
)
def test_steps_are_no_places(run: Any, keep: tuple[str, ...]) -> None:
    model = shared(run, keep)
    with isofire.FiringRecorder(model) as recorder, torch.no_grad():
        for _ in range(2):
            model(torch.rand(8, 6))
    assert recorder.counts.steps == T
    assert recorder.counts.n_images == 16


class Tutorial(nn.Module):
    """A first step before the loop of the others, as in SpikingJelly's first tutorials."""

    def __init__(self, steps: int, loop: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.steps, self.loop = steps, loop
        self.static, self.out = nn.Linear(6, 8), nn.Linear(8, 3)
        self.conv = nn.Sequential(Step(), nn.Linear(8, 8), nn.BatchNorm1d(8), Step())
        self.fc = nn.Sequential(nn.Dropout(), nn.Linear(8, 5), Step())
        self.head = nn.Linear(5, 3)

    def forward(net, x: Tensor) -> Tensor:
        x = net.static(x)
        if net.loop:
            return sum((net.head(net.fc(net.conv(x))) for _ in range(net.steps)), torch.zeros(()))
        out = net.head(net.fc(net.conv(x)))
        for _ in range(1, net.steps):
            out = out + net.head(net.fc(net.conv(x)))
        return out


def test_a_first_step_before_the_loop_is_a_step() -> None:
    x = 3 * torch.rand(8, 6)
    counts, costs = [], []
    for loop in (True, False):
        model = nn.Sequential(Tutorial(4, loop), nn.Softmax(1)).eval()
        with isofire.FiringRecorder(model) as recorder, torch.no_grad():
            model(x)
        counts.append(recorder.counts)
        costs.append(measure_cost(model, (x, LABELS)))
    assert counts[1].steps == 4
    assert counts[0].layers == counts[1].layers
    assert all(torch.equal(counts[0].rates(name), counts[1].rates(name)) for name in counts[0].layers)
    assert costs[0].synapses == costs[1].synapses
    assert costs[1].synops.mean > 0


def test_two_steps_one_before_the_loop_may_be_two_layers() -> None:
    model = Tutorial(2, loop=False)
    with pytest.raises(ModelError, match="was called at 2 places"):
        isofire.compare(model, model, (torch.rand(8, 6), LABELS))


def encoder_then_loop(net: Base, x: Tensor) -> Tensor:
    z = net.n(net.a(x))
    return torch.stack([net.out(net.n(net.b(z))) for _ in range(T)])


def encoder_then_products(net: Base, x: Tensor) -> Tensor:
    z = net.n(net.a(x))
    return torch.stack([net.out(net.n(z @ net.b.weight)) for _ in range(T)])


def products_alone(net: Base, x: Tensor) -> Tensor:
    z = net.n(x @ net.a.weight)
    return torch.stack([net.out(net.n(z @ net.b.weight)) for _ in range(T)])


def unlike_orders(net: Base, x: Tensor) -> Tensor:
    z = net.n(net.a(x))
    return torch.stack([net.out(net.other(net.b(net.n(net.a(x))))) for _ in range(T)] + [net.out(z)])


@pytest.mark.parametrize("run", [encoder_then_loop, encoder_then_products, products_alone, unlike_orders])
def test_an_encoder_before_a_loop_that_shares_its_neuron_is_told(run: Any) -> None:
    model = shared(run, ("other",) if run is unlike_orders else ())
    with pytest.raises(ModelError, match="'n' sees single steps and was called at 2 places"):
        isofire.compare(model, model, (torch.rand(8, 6), LABELS))


class Handed(Step):
    """Is handed its state, and hands it on."""

    def forward(self, x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        v = v + x
        spikes = (v >= 1).to(x.dtype)
        return spikes, v - spikes


class Bare(nn.Module):
    """Layers that are one parameter, between which no module runs, and one neuron for all of them or one each."""

    def __init__(self, layers: int, shared: bool, by_name: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.weights = nn.Parameter(torch.rand(layers, 6, 6))
        self.by_name, one = by_name, Handed()
        self.neurons = nn.ModuleDict({str(place): one if shared else Handed() for place in range(layers)})

    def forward(self, x: Tensor) -> Tensor:
        states, out = [torch.zeros_like(x) for _ in self.weights], []
        for _ in range(T):
            spikes = x
            for place, weight in enumerate(self.weights):
                neuron, current = self.neurons[str(place)], spikes @ weight
                spikes, states[place] = (
                    neuron(current, v=states[place]) if self.by_name else neuron(current, states[place])
                )
            out.append(spikes)
        return torch.stack(out)


@pytest.mark.parametrize("by_name", [False, True])
@pytest.mark.parametrize("layers", [1, 2, 3])
def test_states_that_are_handed_over_apart_are_two_places(layers: int, by_name: bool) -> None:
    images, labels = torch.rand(5, 6), torch.zeros(5, dtype=torch.int64)
    counts = isofire.firing.observe(Bare(layers, False, by_name), (images, labels)).counts
    assert (counts.steps, len(counts.layers)) == (T, layers)
    shared = Bare(layers, True, by_name)
    if layers == 1:
        assert isofire.firing.observe(shared, (images, labels)).counts.steps == T
        return
    with pytest.raises(ModelError, match=r"'neurons\.0' sees single steps and was given states that it gave before"):
        isofire.firing.observe(shared, (images, labels))
