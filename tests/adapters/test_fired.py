"""Neurons that give their spikes elsewhere than first, in what their adapter knows to read."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest
import torch
from tests.bare import BareAdapter
from torch import Tensor, nn

import isofire
from isofire.adapters import Fired, Layout, register, unregister
from isofire.errors import ModelError
from isofire.firing.cost import measure_cost
from isofire.neurons import IF

T = 5
IMAGES = torch.rand(10, 8, generator=torch.Generator().manual_seed(0)) * 4


class Given(NamedTuple):
    z: Tensor
    v: Tensor


Arrange = Callable[[Tensor, Tensor], Any]
WAYS: dict[str, tuple[Arrange, Callable[[Any], Tensor]]] = {
    "first of a tuple": (lambda z, v: (z, v), lambda output: output[0]),
    "first of a list": (lambda z, v: [z, v], lambda output: output[0]),
    "a named tuple": (Given, lambda output: output.z),
    "second": (lambda z, v: (v, z), lambda output: output[1]),
    "a dictionary": (lambda z, v: {"v": v, "z": z}, lambda output: output["z"]),
    "deep inside": (lambda z, v: {"states": [v, v * 2], "out": (v, {"z": z})}, lambda output: output["out"][1]["z"]),
    "scaled": (lambda z, v: (v, 2.0 * z), lambda output: output[1] / 2),
}


class Neuron(nn.Module):
    def __init__(self, arrange: Arrange, read: Callable[[Any], Tensor]) -> None:
        super().__init__()
        self.arrange, self.read, self.v = arrange, read, None

    def forward(self, x: Tensor) -> Any:
        v = x if self.v is None else 0.9 * self.v + x
        z = (v >= 1).float()
        self.v = v * (1 - z)
        return self.arrange(z, v)


class Reading(BareAdapter):
    def spikes(self, neuron: nn.Module, output: Any) -> Any:
        return neuron.read(output).unsqueeze(0)  # pyright: ignore[reportCallIssue]


class Net(nn.Module):
    def __init__(self, way: tuple[Arrange, Callable[[Any], Tensor]]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.a = nn.Linear(8, 16), Neuron(*way)
        self.second, self.b = nn.Linear(16, 12), Neuron(*way)
        self.last = nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        steps = []
        for _ in range(T):
            z = self.a.read(self.a(self.first(x)))
            steps.append(self.last(self.b.read(self.b(self.second(z)))))
        return torch.stack(steps)


def _rest(neuron: Neuron) -> None:
    neuron.v = None


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    register(Neuron, Reading(reset=_rest))
    yield
    unregister(Neuron)


@pytest.mark.parametrize("way", WAYS)
def test_spikes_are_counted_wherever_they_are(way: str) -> None:
    net, spikes = Net(WAYS[way]).eval(), [0.0, 0.0]
    v = w = torch.zeros(10, 12)
    u = torch.zeros(10, 16)
    with torch.no_grad():
        for _ in range(T):
            u = 0.9 * u + net.first(IMAGES)
            z = (u >= 1).float()
            w = 0.9 * v + net.second(z)
            u, y = u * (1 - z), (w >= 1).float()
            v = w * (1 - y)
            spikes = [spikes[0] + float(z.sum()), spikes[1] + float(y.sum())]
    found = measure_cost(net, [(IMAGES, torch.arange(10) % 3)])
    assert not found.left_out
    costs = {site.name: site for site in found.synapses}
    assert costs["second"].synops.mean == pytest.approx(12 * spikes[0] / 10)
    assert costs["last"].synops.mean == pytest.approx(3 * spikes[1] / 10)
    assert (costs["first"].macs_once, costs["first"].macs_every_step) == (8 * 16, 8 * 16 * T)
    compared = isofire.compare(net, net, [(IMAGES, torch.arange(10) % 3)]).to_dict()["synops"]["overall"]
    assert compared["baseline"] == pytest.approx(found.synops.mean)


def test_what_they_are_is_replaced_where_it_was() -> None:
    z, v = torch.eye(3), torch.rand(3, 3)
    neuron = Neuron(*WAYS["deep inside"])
    fired = Fired(neuron, Reading(), neuron.arrange(z, v))
    other = fired.with_values(torch.ones(3, 3))
    assert torch.equal(other["out"][1]["z"], torch.ones(3, 3))
    assert other["states"][0] is v
    assert fired.output["out"][1]["z"] is z


REFUSED: dict[str, tuple[Arrange, Callable[[Any], Tensor], str]] = {
    "none of its tensors": (lambda z, v: (z, v), lambda output: torch.zeros(3, 3), "in one tensor"),
    "two of them": (lambda z, v: (z / 2, z / 2), lambda output: output[0] + output[1], "in one tensor"),
    "no tensor": (lambda z, v: [z, v], lambda output: output, "makes list"),
    "complex": (lambda z, v: (z, v), lambda output: torch.complex(output[0], output[0]), "makes complex numbers"),
    "compared": (lambda z, v: (0.5 * z, v), lambda output: (output[0] > 0).float(), "compares, cuts or joins"),
    "turned round": (lambda z, v: (1 - z, v), lambda output: 1 - output[0], "compares, cuts or joins"),
    "a part of one": (lambda z, v: torch.stack((v, z)), lambda output: output[1], "compares, cuts or joins"),
}


@pytest.mark.parametrize("way", REFUSED)
def test_spikes_that_are_not_numbers_of_one_tensor_are_refused(way: str) -> None:
    arrange, read, told = REFUSED[way]
    with pytest.raises(ModelError, match=told):
        Fired(Neuron(arrange, read), _AsRead(), arrange(torch.eye(3), torch.rand(3, 3)))


class _AsRead(BareAdapter):
    def spikes(self, neuron: nn.Module, output: Any) -> Any:
        return neuron.read(output)  # pyright: ignore[reportCallIssue]


SHARED: dict[str, tuple[Arrange, Callable[[Any], Tensor]]] = {
    "a view first": (lambda z, v: (z.view_as(z), z), lambda output: output[1]),
    "turned round": (lambda z, v: (z.t(), z), lambda output: output[1]),
    "all have fired": (lambda z, v: {"z": torch.ones_like(z), "v": v}, lambda output: output["z"].clone()),
}


@pytest.mark.parametrize("way", SHARED)
def test_of_two_views_the_one_that_is_read_is_found(way: str) -> None:
    arrange, read = SHARED[way]
    z = torch.arange(9.0).view(3, 3)
    output = arrange(z, torch.rand(3, 3))
    fired = Fired(Neuron(arrange, read), _AsRead(), output)
    assert fired.values is (output["z"] if isinstance(output, dict) else output[1])
    assert torch.equal(fired.as_spikes(torch.zeros(3, 3)), torch.zeros(3, 3))


class Keeps(nn.Module):
    """Its last layer reads membranes, which are real numbers."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.neuron, self.last = nn.Linear(8, 16), Neuron(*WAYS["second"]), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([self.last(self.neuron(self.first(x))[0]) for _ in range(T)])


def test_what_it_gives_beside_its_spikes_are_no_events() -> None:
    found = measure_cost(Keeps().eval(), [(IMAGES, torch.arange(10) % 3)])
    (last,) = (site for site in found.synapses if site.name == "last")
    assert (last.synops.mean, last.macs_every_step) == (0, 16 * 3 * T)


class Cell(Neuron):
    """Called in one of several ways."""

    def forward(self, x: Tensor, state: Tensor | None = None) -> Any:
        self.v = state
        return super().forward(x), self.v


class Called(nn.Module):
    """Of a recording [N, T, F] one layer sees all steps in one call."""

    def __init__(self, call: Callable[[nn.Module, Tensor, Any], Any]) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.first, self.cell, self.last = (
            nn.Linear(8, 16),
            Cell(lambda z, v: z, lambda output: output[0]),
            nn.Linear(16, 3),
        )
        self.call = call

    def forward(self, x: Tensor) -> Tensor:
        steps, state = [], torch.zeros(len(x), 16)
        for current in self.first(x).unbind(1):
            z, state = self.call(self.cell, current, state)
            steps.append(self.last(z))
        return torch.stack(steps)


class StateFirst(Cell):
    def forward(self, state: Any, x: Tensor | None = None) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        return super().forward(x, state)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    "call",
    [
        lambda cell, x, state: cell(x, state), lambda cell, x, state: cell(x=x, state=state),
        lambda cell, x, state: cell(state=state, x=x), lambda cell, x, state: cell(*(x, state)),
    ],
)  # fmt: skip
def test_what_drives_a_neuron_is_known_however_it_is_called(call: Callable[..., Any]) -> None:
    recording = torch.rand(6, T, 8, generator=torch.Generator().manual_seed(3)) * 4
    found = measure_cost(Called(call).eval(), [(recording, torch.arange(6) % 3)])
    (first,) = (site for site in found.synapses if site.name == "first")
    assert (first.macs_once, first.macs_every_step) == (8 * 16 * T, 8 * 16 * T)


@pytest.mark.parametrize(
    "change",
    [
        lambda state, x: state, lambda state, x: state * 0.99, lambda state, x: state.clone(),
        lambda state, x: torch.where(state > 0.5, 0.5, state), lambda state, x: state.clone().mul_(0.5),
        lambda state, x: state + torch.ones_like(x[:, :1]), lambda state, x: state if state.any() else state + 0.25,
    ],
    ids=["as it was", "leaks", "copied", "clipped", "in place", "raised", "starts at a quarter"],
)  # fmt: skip
def test_a_state_that_comes_first_does_not_drive_it(change: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Be it changed outside of the neuron."""
    net = Called(lambda cell, x, state: cell(change(state, x), x))
    net.cell = StateFirst(lambda z, v: z, lambda output: output[0])
    recording = torch.rand(6, T, 8, generator=torch.Generator().manual_seed(3)) * 4
    found = measure_cost(net.eval(), [(recording, torch.arange(6) % 3)])
    (first,) = (site for site in found.synapses if site.name == "first")
    assert (first.macs_once, first.macs_every_step) == (8 * 16 * T, 8 * 16 * T)


def test_heights_are_whole_or_not_whatever_one_call_holds() -> None:
    """Of height .5 and of two spikes a step: one call's 1.0 are two spikes, as another's are."""
    for height in (0.5, 1.5):

        def arrange(z: Tensor, v: Tensor, height: float = height) -> Any:
            return v, height * (z + (v >= 2).float())

        net = Net((arrange, lambda output, height=height: output[1] / height)).eval()
        with torch.no_grad():
            for layer in (net.second, net.last):
                layer.weight.abs_()
        found = measure_cost(net, [(IMAGES, torch.arange(10) % 3)])
        spikes = {item.name: item.spikes.mean for item in found.neurons}
        costs = {site.name: site.synops.mean for site in found.synapses}
        assert costs["second"] == pytest.approx(12 * spikes["a"])
        assert costs["last"] == pytest.approx(3 * spikes["b"])


@pytest.mark.parametrize("height", [1.0, 2.0, 0.5])
def test_a_spike_of_minus_one_is_a_spike(height: float) -> None:
    """Divided by its height, of any height."""

    def arrange(z: Tensor, v: Tensor) -> Any:
        return v, height * (z - (v < -0.5).float())

    net = Net((arrange, lambda output: output[1] / height)).eval()
    found = measure_cost(net, [(IMAGES, torch.arange(10) % 3)])
    spikes = {item.name: item.spikes.mean for item in found.neurons}
    costs = {site.name: site.synops.mean for site in found.synapses}
    assert costs["second"] == pytest.approx(12 * spikes["a"])
    assert costs["last"] == pytest.approx(3 * spikes["b"])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("height", [3.0, 7.0, 0.25])
def test_heights_are_known_in_any_precision(height: float, dtype: torch.dtype) -> None:
    neuron = Neuron(*WAYS["first of a tuple"])
    neuron.read = lambda output: output[0] / height
    fired = Fired(neuron, _AsRead(), ((torch.eye(3) * height).to(dtype), torch.rand(3, 3)))
    assert fired.heights == height


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("height", [3.0, 5.0, 7.0])
def test_an_adapter_may_divide_in_few_bits(height: float, dtype: torch.dtype) -> None:
    neuron = Neuron(*WAYS["first of a tuple"])
    neuron.read = lambda output: output[0].to(dtype) / height
    fired = Fired(neuron, _AsRead(), (torch.ones(3, 400) * height, torch.rand(3, 3)))
    assert fired.heights == height
    assert fired.step_of_each.tolist() == [[0] * 400, [1] * 400, [2] * 400]


def test_states_may_be_sparse() -> None:
    z = torch.eye(3)
    neuron = Neuron(*WAYS["second"])
    assert Fired(neuron, Reading(), (torch.eye(3).to_sparse(), z)).values is z


def test_a_neuron_that_its_adapter_holds_is_freed() -> None:
    neuron = Neuron(*WAYS["second"])
    adapter = Reading()
    adapter.neuron = neuron  # pyright: ignore[reportAttributeAccessIssue]
    Fired(neuron, adapter, (torch.rand(3, 3), torch.eye(3)))
    alive = weakref.ref(neuron)
    del neuron, adapter
    gc.collect()
    assert alive() is None


@pytest.mark.parametrize("dtype", [torch.uint8, torch.bool, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("numbers", [1, 127, 128, 129, 70_000])
def test_an_adapter_may_give_numbers_of_few_bits(dtype: torch.dtype, numbers: int) -> None:
    to = torch.uint8 if dtype == torch.bool else dtype
    fired = Fired(Neuron(*WAYS["second"]), _Narrow(to), torch.ones(2, numbers).to(dtype))
    assert fired.step_of_each.tolist() == [[0] * numbers, [1] * numbers]
    assert fired.heights == 1


@dataclass
class _Narrow(BareAdapter):
    """Takes steps first; as a dataclass it has no hash."""

    dtype: torch.dtype

    def layout(self, neuron: nn.Module) -> Layout:
        return Layout.TIME_FIRST

    def spikes(self, neuron: nn.Module, output: Any) -> Any:
        return output.to(self.dtype)


def test_a_layer_of_no_neurons_has_no_spikes() -> None:
    z = torch.zeros(3, 0)
    assert Fired(Neuron(*WAYS["second"]), _AsRead(), (torch.rand(3, 3), z)).values is z


class Split(nn.Module):
    """Frames of -1, 0 and 1 by their sign, in one of several spellings."""

    def __init__(self, below: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.below, self.first, self.neuron, self.last = below, nn.Linear(16, 8), IF(), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.neuron(self.first(torch.cat((torch.relu(x), self.below(x)), -1))))


@pytest.mark.parametrize(
    "below",
    [
        lambda x: torch.relu(-x), lambda x: (-x).clamp(min=0), lambda x: (x < 0).float(), lambda x: torch.relu(x * -1),
        lambda x: torch.relu(0 - x), lambda x: torch.relu(x / -1), lambda x: torch.relu(torch.zeros(8) - x),
    ],
)  # fmt: skip
def test_frames_of_both_signs_are_events_on_either_side(below: Callable[[Tensor], Tensor]) -> None:
    frames = torch.randint(-1, 2, (6, T, 8), generator=torch.Generator().manual_seed(0)).float()
    net = nn.Sequential(_StepsFirst(), Split(below)).eval()
    found = measure_cost(net, [(frames, torch.arange(6) % 3)])
    first = found.synapses[0]
    assert first.synops.mean == pytest.approx(8 * float((frames != 0).sum()) / 6)
    assert first.macs_every_step == 0


@pytest.mark.parametrize("shift", [lambda x: x + 0.5, lambda x: x * -0.5, lambda x: 0.5 - x])
def test_frames_that_are_made_real_are_multiplied(shift: Callable[[Tensor], Tensor]) -> None:
    frames = torch.randint(-1, 2, (6, T, 8), generator=torch.Generator().manual_seed(0)).float()
    net = nn.Sequential(_StepsFirst(), Split(shift)).eval()
    first = measure_cost(net, [(frames, torch.arange(6) % 3)]).synapses[0]
    assert first.macs_every_step == 8 * 8 * T
    assert first.synops.mean == pytest.approx(8 * float((frames > 0).sum()) / 6)


class _StepsFirst(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.transpose(0, 1)


def test_a_scripted_layer_is_gone_past() -> None:
    net = Net(WAYS["second"])
    net.second = torch.jit.script(net.second)  # pyright: ignore[reportAttributeAccessIssue]
    found = measure_cost(net.eval(), [(IMAGES, torch.arange(10) % 3)])
    assert isofire.compare(net, net, [(IMAGES, torch.arange(10) % 3)]).agreement == 1
    assert {site.name for site in found.synapses} >= {"first", "last"}
