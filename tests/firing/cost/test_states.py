"""States that layers keep from step to step without spiking are state memory, or named."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from tests.firing.cost.test_real_values import CLASSES, FRAMES, LABELS, REAL, F, Net
from torch import Tensor, nn

from isofire.adapters import Adapter, Layout, register, reset_, unregister
from isofire.errors import ModelError
from isofire.firing.cost import measure_cost
from isofire.firing.limits import Limits
from isofire.firing.verdict import check
from isofire.neurons import LIF

TRACES = {"trace", "moving average", "by subtraction", "in place", "momentum", "corrected mean", "second order"}


@pytest.mark.parametrize("name", [*REAL, "mean over time", "sums of two"])
def test_a_trace_that_a_network_keeps_itself_is_named_as_no_part_of_the_state_memory(name: str) -> None:
    others = {"mean over time": lambda z: z.mean(0), "sums of two": lambda z: z + z.flip(-1)}
    cost = measure_cost(Net((REAL | others)[name]).eval(), (FRAMES, LABELS))
    assert cost.memory.state_bits == 32 * F
    told = [str(item) for item in cost.left_out]
    if name in TRACES:
        assert told == ["(model): keeps numbers from step to step, which are in no state memory (share unknown)"]
        assert told[0] in cost.table()
    else:
        assert told == []


def leaky(net: Reads, spikes: Tensor) -> Tensor:
    v, out = torch.zeros(spikes.shape[1], CLASSES), []
    for current in net.head(spikes):
        v = v + (current - v) / 5.0
        out.append(v)
    return torch.stack(out)


def in_a_buffer(net: Reads, spikes: Tensor) -> Tensor:
    currents = net.head(spikes)
    v = torch.zeros_like(currents)
    for step in range(1, len(v)):
        v[step] = 0.8 * v[step - 1] + currents[step]
    return v


def gated(net: Reads, spikes: Tensor) -> Tensor:
    h, out = torch.zeros(spikes.shape[1], F), []
    for step in spikes:
        z = torch.sigmoid(step)
        h = z * h + (1 - z) * step.cos()
        out.append(net.head(h))
    return torch.stack(out)


def by_hand(net: Reads, spikes: Tensor) -> Tensor:
    h, out = torch.zeros(spikes.shape[1], CLASSES), []
    for step in spikes:
        h = torch.tanh(step[:, :CLASSES] + net.head(torch.cat([h, step[:, CLASSES:]], 1)))
        out.append(h)
    return torch.stack(out)


def added_up(net: Reads, spikes: Tensor) -> Tensor:
    total = torch.zeros(spikes.shape[1], CLASSES)
    for step, weight in zip(spikes, torch.arange(len(spikes)).double().softmax(0).float(), strict=True):
        total = total + weight * net.head(step)
    return total


def normalised(net: Reads, spikes: Tensor) -> Tensor:
    x = spikes
    for _ in range(len(spikes)):
        x = 0.5 * (x - 0.1)
    return net.head(x)


def residual(net: Reads, spikes: Tensor) -> Tensor:
    x = spikes
    for layer in net.layers:
        x = x + torch.relu(layer(x))
        x = torch.nn.functional.layer_norm(x, (F,))
    return net.head(x)


class Reads(nn.Module):
    """A readout of the network's own code behind one layer of neurons."""

    def __init__(self, read: Callable[[Reads, Tensor], Tensor]) -> None:
        super().__init__()
        self.fire, self.head, self.read = LIF(), nn.Linear(F, CLASSES), read
        self.layers = nn.ModuleList(nn.Linear(F, F) for _ in range(6))

    def forward(self, x: Tensor) -> Tensor:
        return self.read(self, self.fire(x))


@pytest.mark.parametrize("read", [leaky, in_a_buffer, gated, by_hand, added_up, normalised, residual])
def test_a_state_of_the_networks_own_code_is_named_wherever_it_is_said_what_is_kept(
    read: Callable[[Reads, Tensor], Tensor],
) -> None:
    model = Reads(read).eval()
    cost = measure_cost(model, (FRAMES, LABELS))
    (finding,) = check(model, model, (FRAMES, LABELS), Limits(state_bytes=1e6)).findings
    if read in (added_up, normalised, residual):
        # sums over all steps, over layers, and offsets are no states
        assert cost.left_out == ()
        assert finding.outcome == "keeps"
    else:
        assert [str(item) for item in cost.left_out] == [
            "(model): keeps numbers from step to step, which are in no state memory (share unknown)"
        ]
        assert (finding.outcome, "(model)" in finding.about) == ("undecided", True)


class Recurrent(nn.Module):
    """A recurrent layer of torch behind spikes, given all steps or one at a time."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.fire, self.layer = LIF(), layer

    def forward(self, x: Tensor) -> Tensor:
        spikes = self.fire(x)
        if isinstance(self.layer, nn.RNNBase):
            return self.layer(spikes)[0]
        state, out = None, []
        for step in spikes:
            state = self.layer(step, state)
            out.append(state[0] if isinstance(state, tuple) else state)
        return torch.stack(out)


@pytest.mark.parametrize(("layer", "numbers"), [
    (nn.RNN(F, 7), 7), (nn.GRU(F, 7, num_layers=2), 14), (nn.LSTM(F, 7), 14), (nn.LSTM(F, 7, proj_size=3), 10),
    (nn.RNNCell(F, 7), 7), (nn.GRUCell(F, 7), 7), (nn.LSTMCell(F, 7), 14),
], ids=lambda value: str(value))  # fmt: skip
def test_states_of_recurrent_layers_are_state_memory(layer: nn.Module, numbers: int) -> None:
    model = Recurrent(layer).eval()
    cost = measure_cost(model, (FRAMES, LABELS))
    assert cost.memory.state_bits == 32 * (F + numbers)
    assert cost.memory.states["layer"].total == 32 * numbers
    assert [line for line in cost.table().splitlines() if line.startswith("layer ") and "none" in line]
    alone = measure_cost(nn.Sequential(model.fire, nn.Linear(F, 7)), (FRAMES, LABELS)).energy()
    assert cost.energy().states > alone.states
    (finding,) = check(model, model, (FRAMES, LABELS), Limits(state_bytes=1e6)).findings
    assert (finding.outcome, "layer" in finding.about) == ("undecided", True)
    (finding,) = check(model, model, (FRAMES, LABELS), Limits(state_bytes=4.0 * F - 1)).findings
    assert finding.outcome == "fails"


class Ternary(nn.Module):
    """Fires -1, 0 and 1."""

    def forward(self, x: Tensor) -> Tensor:
        v, out = torch.zeros_like(x[0]), []
        for step in x:
            v = 0.5 * v + step
            z = (v >= 0.4).float() - (v <= -0.4).float()
            v = v - 0.4 * z
            out.append(z)
        return torch.stack(out)


class OfTernary(Adapter):
    def layout(self, neuron: nn.Module) -> Layout:
        return Layout.TIME_FIRST

    def threshold(self, neuron: nn.Module) -> Tensor:
        return torch.tensor(0.4)

    def v_reset(self, neuron: nn.Module) -> None:
        return None

    def refusal(self, neuron: nn.Module, placement: str) -> str:
        return "it has no place for a membrane quantizer"

    def host(self, neuron: nn.Module) -> type:
        raise NotImplementedError


def test_a_spike_of_minus_one_is_a_spike() -> None:
    register(Ternary, OfTernary())
    try:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(F, 8), Ternary(), nn.Linear(8, 3)).eval()
        cost = measure_cost(model, (FRAMES, LABELS))
        with torch.no_grad():
            spikes = model[1](model[0](FRAMES))
    finally:
        unregister(Ternary)
    assert (spikes < 0).any()
    each = spikes.abs().sum((0, 2))
    assert (cost.spikes.mean, cost.neurons[0].spikes.max) == (pytest.approx(float(each.mean())), float(each.max()))
    assert cost.synapses[-1].synops.mean == pytest.approx(3 * float(each.mean()))


class Confident(nn.Module):
    """Stops when it is sure, on average, of all images that it was given."""

    def __init__(self, enough: float) -> None:
        super().__init__()
        torch.manual_seed(0)
        neuron = pytest.importorskip("spikingjelly.activation_based.neuron")
        self.first, self.fire, self.head = nn.Linear(20, 30), neuron.LIFNode(v_threshold=0.3), nn.Linear(30, 3)
        self.enough, self.spikes, self.steps = enough, 0.0, 0
        for layer in (self.first, self.head):
            layer.weight.data.mul_(1.5)

    def forward(self, x: Tensor) -> Tensor:
        total, self.spikes = torch.zeros(len(x), 3), 0.0
        for step in range(8):
            spikes = self.fire(self.first(x))
            self.spikes += float(spikes.sum())
            total, self.steps = total + self.head(spikes), step + 1
            if step > 1 and float((total / (step + 1)).softmax(1).max(1).values.mean()) > self.enough:
                break
        return total


def test_a_network_that_decides_by_all_images_is_given_one_at_a_time() -> None:
    images, labels = 3 * torch.rand(8, 20, generator=torch.Generator().manual_seed(29)), torch.arange(8) % 3
    model = Confident(0.42).eval()
    alone = []
    with torch.no_grad():
        for place in range(8):
            reset_(model)
            model(images[place : place + 1])
            alone.append((model.steps, 3 * model.spikes))
    # those that stop after the same step; together with others they stop elsewhere
    steps = alone[0][0]
    same = [place for place, (taken, _) in enumerate(alone) if taken == steps]
    assert 2 < len(same) < 8
    head = next(s for s in measure_cost(model, (images[same], labels[same])).synapses if s.name == "head")
    assert head.synops.mean == pytest.approx(sum(alone[place][1] for place in same) / len(same))
    with pytest.raises(ModelError, match="gives an image other numbers beside other images"):
        measure_cost(model, (images, labels))


class Siamese(nn.Module):
    """The same first layer for two images."""

    def __init__(self, steps: int, own: bool, before: bool) -> None:
        super().__init__()
        self.first, self.one, self.head, self.steps, self.before = (
            nn.Linear(20, 16),
            LIF(),
            nn.Linear(16, 2),
            steps,
            before,
        )
        self.other = LIF() if own else self.one

    def forward(self, x: Tensor) -> Tensor:
        found = []
        for place, neurons in enumerate((self.one, self.other)):
            image = x[:, place]
            if self.before:
                driven = self.first(image).unsqueeze(0).repeat(self.steps, 1, 1)
            else:
                driven = self.first(image.unsqueeze(0).repeat(self.steps, 1, 1))
            found.append(self.head(neurons(driven)))
        return found[0] + found[1]


@pytest.mark.parametrize("steps", [2, 4])
@pytest.mark.parametrize("before", [True, False])
def test_two_images_of_one_layer_are_no_two_steps(steps: int, before: bool) -> None:
    data = 3 * torch.rand(6, 2, 20), torch.arange(6) % 2
    cost = measure_cost(Siamese(steps, True, before).eval(), data)
    first = next(item for item in cost.synapses if item.name == "first")
    assert (cost.T, first.macs_once, first.macs_every_step) == (steps, 2 * 20 * 16, steps * 2 * 20 * 16)
    with pytest.raises(ModelError, match="neuron 'one' was called more than once in one forward"):
        measure_cost(Siamese(steps, False, before).eval(), data)
