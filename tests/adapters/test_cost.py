"""What other libraries' neurons cost: graded spikes and recurrent weights, against sums over their spikes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.bare import BareAdapter
from torch import Tensor, nn

from isofire.adapters import Adapter, Layout, OverTime, register, unregister
from isofire.firing import FiringRecorder, compare
from isofire.firing.cost import measure_cost, memory_of, reach, synops
from isofire.firing.limits import Limits
from isofire.firing.verdict import check
from isofire.neurons import LIF, PerStep, Repeat

IMAGES = torch.rand(16, 6, generator=torch.Generator().manual_seed(0)) * 2
LABELS = torch.zeros(16, dtype=torch.int64)
STEPS = torch.tensor([0.0, 1, 2, 1, 0]).view(-1, 1, 1)


def network(neuron: nn.Module) -> OverTime:
    torch.manual_seed(0)
    import snntorch

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.neuron, self.second = nn.Linear(6, 8), neuron, nn.Linear(8, 5)
            self.last = snntorch.Leaky(beta=0.9, init_hidden=True)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.second(self.neuron(self.first(x))))

    return OverTime(Net(), 5).eval()


def outputs(model: OverTime) -> Tensor:
    """What the neuron gave, [T, N, 8]."""
    kept: list[Any] = []
    handle = model.net.neuron.register_forward_hook(lambda _m, _i, out: kept.append(out.detach().clone()))
    with torch.no_grad():
        model(IMAGES)
    handle.remove()
    return torch.stack(kept)


@pytest.mark.parametrize(("height", "each"), [(1, 1), (3, 3), (0.5, 1)])
def test_a_graded_spike_counts_by_its_height(height: float, each: float) -> None:
    """A whole height is so many events, as a sum of spikes is; any other is a factor of the weights."""
    snntorch = pytest.importorskip("snntorch")
    model = network(snntorch.Leaky(beta=0.9, init_hidden=True, graded_spikes_factor=height))
    spikes = outputs(model).count_nonzero() / len(IMAGES)
    assert spikes > 0
    cost = measure_cost(model, (IMAGES, LABELS))
    assert cost.synops.mean == pytest.approx(float(spikes) * each * 5)
    with FiringRecorder(model) as recorder, torch.no_grad():
        model(IMAGES)
    assert sum(synops(recorder.counts, reach(model, IMAGES[:2])).values()) == pytest.approx(cost.synops.mean)


@pytest.mark.parametrize("all_to_all", [True, False])
def test_recurrent_weights_inside_a_neuron(all_to_all: bool) -> None:
    """Spikes of all steps but the last come back to 8 neurons, or each to its own."""
    snntorch = pytest.importorskip("snntorch")
    options = {"linear_features": 8} if all_to_all else {"all_to_all": False, "V": torch.rand(8)}
    model = network(snntorch.RLeaky(beta=0.9, init_hidden=True, **options))
    spikes = outputs(model)
    cost = measure_cost(model, (IMAGES, LABELS))
    place = next(item for item in cost.synapses if "recurrent" in item.name)
    assert spikes[:-1].sum() > 0
    assert place.synops.mean == pytest.approx(float(spikes[:-1].sum()) / 16 * (8 if all_to_all else 1))
    found = reach(model, IMAGES[:2])
    assert [item.name for item in found.left_out] == [place.name]
    assert found.left_out[0].reason == "recurrence inside the neuron"
    assert torch.equal(found["net.neuron"], torch.full((8,), 5.0, dtype=torch.float64))


def test_recurrent_weights_of_norse() -> None:
    norse = pytest.importorskip("norse.torch")

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.neuron, self.second = nn.Linear(6, 8), norse.LIFRecurrent(8, 8), nn.Linear(8, 5)

        def forward(self, x: Tensor) -> Tensor:
            return self.second(self.neuron(self.first(x.unsqueeze(0).expand(9, *x.shape)))[0])

    torch.manual_seed(0)
    model = Net().eval()
    kept: list[Any] = []
    handle = model.neuron.register_forward_hook(lambda _m, _i, out: kept.append(out[0].detach()))
    with torch.no_grad():
        model(IMAGES * 20)
    handle.remove()
    cost = measure_cost(model, (IMAGES * 20, LABELS))
    found = {item.name: item for item in cost.synapses}
    assert kept[0][:-1].sum() > 0
    assert found["neuron.recurrent_weights"].synops.mean == pytest.approx(float(kept[0][:-1].sum()) / 16 * 8)
    assert found["second"].synops.mean == pytest.approx(float(kept[0].sum()) / 16 * 5)
    assert "neuron.recurrent_weights" in [item.name for item in reach(model, IMAGES[:2]).left_out]


def neurons_with_states() -> list[Any]:
    """Makers of neurons by library, and what each neuron keeps."""
    return [
        ("snntorch", lambda lib: lib.Leaky(beta=0.9), 1),
        ("snntorch", lambda lib: lib.Synaptic(alpha=0.8, beta=0.9), 2),
        ("snntorch", lambda lib: lib.Alpha(alpha=0.8, beta=0.7), 3),
        ("norse.torch", lambda lib: lib.LIF(), 2),
        ("norse.torch", lambda lib: lib.LIFCell(), 2),
        ("norse.torch", lambda lib: lib.LIFRecurrent(3, 3), 2),
        ("norse.torch", lambda lib: lib.IAF(), 1),
        ("norse.torch", lambda lib: lib.LSNN(), 3),
        ("norse.torch", lambda lib: lib.LIFRefracCell(), 3),
        ("norse.torch", lambda lib: lib.LIFAdExRefracCell(), 4),
        ("norse.torch", lambda lib: lib.LIFMCRefracRecurrentCell(3, 3), 3),
        ("sinabs.layers", lambda lib: lib.IAF(), 1),
        ("sinabs.layers", lambda lib: lib.LIF(tau_mem=10.0, tau_syn=5.0), 2),
        ("sinabs.layers", lambda lib: lib.ALIF(tau_mem=10.0, tau_adapt=10.0, tau_syn=5.0), 3),
        ("spikingjelly.activation_based.neuron", lambda lib: lib.LIFNode(), 1),
        ("spikingjelly.activation_based.neuron", lambda lib: lib.IzhikevichNode(), 2),
    ]


@pytest.mark.parametrize(("library", "make", "states"), neurons_with_states())
def test_synaptic_currents_are_states_too(library: str, make: Any, states: int) -> None:
    """As many numbers as the library's own documentation says that a neuron carries from step to step."""
    neuron = make(pytest.importorskip(library))
    found = memory_of(nn.Sequential(nn.Linear(3, 3), neuron), {"1": 3})
    assert found.state_bits == 3 * 32 * states


def test_a_state_that_holds_the_spikes_takes_no_events_from_them() -> None:
    """Norse's recurrent cells give (z, state) with state.z the same tensor."""

    class Cell(nn.Module):
        def forward(self, x: Tensor, state: Any = None) -> Any:
            v = x if state is None else 0.5 * state[1] + x
            z = (v > 1).float()
            return z, (z, v * (1 - z), z[:, :1])

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.first, self.cell, self.last = nn.Linear(6, 8), Cell(), nn.Linear(8, 3)
            self.spikes = 0.0

        def forward(self, x: Tensor) -> Tensor:
            state, out = None, []
            for _ in range(4):
                z, state = self.cell(3 * self.first(x), state)
                self.spikes += float(z.detach().sum())
                out.append(self.last(z))
            return torch.stack(out)

    register(Cell, BareAdapter())
    try:
        model = Net().eval()
        model(IMAGES)
        expected = model.spikes * 3 / len(IMAGES)
        assert expected > 0
        cost = measure_cost(model, (IMAGES, LABELS))
        with FiringRecorder(model) as recorder, torch.no_grad():
            model(IMAGES)
        followed = synops(recorder.counts, reach(model, IMAGES[:2]))
    finally:
        unregister(Cell)
    assert cost.synops.mean == pytest.approx(expected)
    assert followed == {"cell": pytest.approx(expected)}


def encoders() -> list[Any]:
    """What encodes images into spikes, and whether a call gives one step, by library."""
    jelly = "spikingjelly.activation_based.encoding"
    return [
        ("snntorch.spikegen", lambda lib: lambda x: lib.rate(x, num_steps=5), False),
        ("snntorch.spikegen", lambda lib: lambda x: lib.latency(x, num_steps=5, normalize=True, linear=True), False),
        ("snntorch.spikegen", lambda lib: lambda x: lib.delta(x * STEPS, 0.2, off_spike=True), False),
        (jelly, lambda lib: lib.PoissonEncoder(), True),
        (jelly, lambda lib: lib.LatencyEncoder(5), True),
        (jelly, lambda lib: lib.WeightedPhaseEncoder(5), True),
    ]


@pytest.mark.parametrize(("library", "make", "stepped"), encoders())
def test_spikes_of_a_librarys_encoder_count_by_unit_weights(library: str, make: Any, stepped: bool) -> None:
    encoder = make(pytest.importorskip(library))

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encode, self.first, self.fire = encoder, nn.Linear(6, 8), LIF()

        def forward(self, x: Tensor) -> Tensor:
            made = torch.stack([self.encode(x) for _ in range(5)]) if stepped else self.encode(x)
            seen.append((float((made != 0).sum()), made.shape[1]))
            return self.fire(self.first(made))

    torch.manual_seed(0)
    seen: list[tuple[float, int]] = []
    cost = measure_cost(Net().eval(), (IMAGES / 2.2, LABELS))
    # all images together, or each alone because they were drawn anew
    spikes, together = seen[-1] if seen[-1][1] > 1 else (sum(found for found, _ in seen[-16:]), 16)
    assert (spikes > 0, together) == (True, 16)
    assert cost.synapses[0].event_driven
    assert cost.synops.mean == pytest.approx(spikes / 16 * 8)


def keepers() -> list[Any]:
    """Layers that keep states and do not spike, by library, and how many states."""
    norse, jelly = "norse.torch", "spikingjelly.activation_based"
    return [
        (norse, lambda lib: lib.LI(), 2),
        (norse, lambda lib: lib.LICell(), 2),
        (norse, lambda lib: lib.LIBoxCell(), 1),
        ("sinabs.layers", lambda lib: lib.ExpLeak(tau_mem=10.0), 1),
        (f"{jelly}.layer", lambda lib: lib.SynapseFilter(tau=3.0, step_mode="m"), 1),
        (f"{jelly}.layer", lambda lib: lib.SynapseFilter(tau=3.0), 1),
    ]


def test_dropout_and_norms_for_each_step_keep_no_state() -> None:
    """SpikingJelly's memories that are a mask of training, or a counter of steps."""
    layer, neuron = (pytest.importorskip(f"spikingjelly.activation_based.{name}") for name in ("layer", "neuron"))
    net = nn.Sequential(
        layer.Linear(6, 7), layer.Dropout(0.5), neuron.IFNode(), layer.Dropout2d(0.5), layer.DropConnectLinear(7, 3)
    )
    if hasattr(layer, "BatchNormThroughTime1d"):
        net.insert(1, layer.BatchNormThroughTime1d(5, 7))
    model = OverTime(net, 5).eval()
    data = (torch.rand(16, 6, generator=torch.Generator().manual_seed(0)), torch.arange(16) % 3)
    assert measure_cost(model, data).memory.state_bits == 7 * 32
    (finding,) = check(model, model, data, Limits(state_bytes=28.0)).findings
    assert (finding.outcome, finding.value) == ("keeps", 28.0)


@pytest.mark.parametrize(("library", "make", "states"), keepers())
def test_layers_that_integrate_and_do_not_spike(library: str, make: Any, states: int) -> None:
    """Their states are memory, and weights behind them multiply at every step."""
    layer = make(pytest.importorskip(library))
    stepped = "Cell" in type(layer).__name__ or getattr(layer, "step_mode", "m") == "s"

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fire, self.layer, self.head = LIF(), layer, nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            spikes = self.fire(x.expand(5, *x.shape))
            if not stepped:
                turned = spikes.transpose(0, 1) if "sinabs" in library else spikes
                out = self.layer(turned)
                out = out[0] if isinstance(out, tuple) else out
                return self.head(out.transpose(0, 1) if "sinabs" in library else out)
            state, steps = None, []
            for step in spikes:
                out = self.layer(step, state) if "norse" in library else self.layer(step)
                out, state = out if isinstance(out, tuple) else (out, None)
                steps.append(self.head(out))
            return torch.stack(steps)

    cost = measure_cost(Net().eval(), (2 * IMAGES, LABELS))
    assert cost.spikes.mean > 0
    assert cost.memory.state_bits == 32 * 6 * (1 + states)
    assert cost.left_out == ()
    head = next(item for item in cost.synapses if item.name == "head")
    assert (head.synops.max, head.macs_every_step) == (0, 5 * 6 * 3)


class Pooled(nn.Module):
    """snnTorch's convolutional LSTM, of which each step sees frames of events beside its own state."""

    def __init__(self, **pool: int) -> None:
        super().__init__()
        import snntorch

        torch.manual_seed(0)
        self.cell = snntorch.SConv2dLSTM(2, 4, 3, threshold=0.05, **pool)
        self.head = nn.Linear(36 if pool else 196, 3)

    def forward(self, x: Tensor) -> Tensor:
        syn, mem = self.cell.init_sconv2dlstm()
        total = torch.zeros(())
        for step in x:
            spikes, syn, mem = self.cell(step, syn, mem)
            total = total + self.head(spikes.flatten(1))
        return total


@pytest.mark.parametrize("pool", [{}, {"max_pool": 2}, {"avg_pool": 2}])
def test_what_pools_its_states_keeps_them_all(pool: dict[str, int]) -> None:
    """7 x 7 states a channel, of which 3 x 3 spikes come; events beside the state are accumulated."""
    pytest.importorskip("snntorch")
    model = Pooled(**pool).eval()
    frames = torch.poisson(0.5 * torch.rand(5, 9, 2, 7, 7))
    with torch.no_grad():
        model(frames)
    assert model.cell.mem.shape[1:] == (4, 7, 7)
    cost = measure_cost(model, [(frames, torch.zeros(9, dtype=torch.int64))])
    assert cost.memory.states["cell"].total == 2 * 32 * 4 * 7 * 7
    assert cost.neurons[0].neurons == (36 if pool else 196)
    taps = nn.functional.conv2d
    expected = taps(frames.flatten(0, 1), torch.ones(16, 2, 3, 3), padding=1).sum() / 9
    (cell,) = [item for item in cost.synapses if item.name == "cell.conv"]
    assert cell.synops.mean == pytest.approx(float(expected))
    # the first step's state is at rest
    products = 4 * taps(torch.ones(1, 4, 7, 7), torch.ones(16, 4, 3, 3), padding=1).sum()
    assert cell.macs_every_step == pytest.approx(float(products))


def test_states_that_are_pooled_are_not_told_by_spikes() -> None:
    pytest.importorskip("snntorch")
    frames = torch.poisson(0.5 * torch.rand(5, 9, 2, 7, 7))
    data = [(frames, torch.zeros(9, dtype=torch.int64))]
    for pool, outcome in (({}, "keeps"), ({"max_pool": 2}, "undecided")):
        model = Pooled(**pool).eval()
        verdict = check(model, model, data, Limits(state_bytes=10_000))
        (found,) = [finding for finding in verdict.findings if finding.name == "state_bytes"]
        assert (found.outcome, "pools" in found.about) == (outcome, bool(pool))


@pytest.mark.parametrize("beta", [0.5, torch.linspace(0.2, 0.8, 8)], ids=["one leak", "a leak each"])
@pytest.mark.parametrize("learned", [False, True])
def test_a_leak_over_all_steps_at_once_is_the_neurons_own(beta: Any, learned: bool) -> None:
    """A filter over time for each channel multiplies no more than a membrane that decays."""
    snntorch = pytest.importorskip("snntorch")

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.first = nn.Linear(6, 8)
            self.neuron = snntorch.StateLeaky(beta=beta, channels=8, learn_beta=learned)
            self.head = nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.neuron(3 * self.first(x))[0])

    events = (torch.rand(5, 16, 6) < 0.5).float()
    cost = measure_cost(Net().eval(), [(events, LABELS)])
    assert [item.name for item in cost.synapses] == ["first", "head"]
    assert [item.macs_every_step for item in cost.synapses] == [0, 0]
    assert cost.synapses[0].synops.mean == pytest.approx(float(events.sum() / 16 * 8))


class Joined(nn.Module):
    """A recurrent neuron that multiplies its input beside its spikes with its two weights side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.of_input, self.of_spikes = nn.Parameter(torch.rand(8, 6)), nn.Parameter(torch.rand(8, 8))
        self.spikes: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        before = torch.zeros(len(x), 8) if self.spikes is None else self.spikes
        weight = torch.cat([self.of_input, self.of_spikes], 1)
        self.spikes = (nn.functional.linear(torch.cat([x, before], 1), weight) > 1).float()
        return self.spikes


def _forget(neuron: Joined) -> None:
    neuron.spikes = None


def test_weights_that_a_neuron_joins_are_weights() -> None:
    register(Joined, BareAdapter(reset=_forget))
    try:
        torch.manual_seed(0)

        class Net(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.neuron, self.head = Joined(), nn.Linear(8, 3)

            def forward(self, x: Tensor) -> Tensor:
                return sum((self.head(self.neuron(step)) for step in x), torch.zeros(()))

        events = (torch.rand(4, 16, 6) < 0.4).float()
        cost = measure_cost(Net().eval(), [(events, LABELS)])
        spikes = sum(item.mean for item in cost.neurons[0].spikes_per_step[:-1])
        (inside,) = [item for item in cost.synapses if item.name == "neuron"]
        assert inside.macs_every_step == 0
        assert inside.synops.mean == pytest.approx(8 * (float(events.sum()) / 16 + spikes))
    finally:
        unregister(Joined)


class Adapts(nn.Module):
    """A membrane and an adapting threshold."""

    def forward(self, x: Tensor) -> Tensor:
        v, b, out = torch.zeros_like(x[0]), torch.zeros_like(x[0]), []
        for current in x:
            v = 0.8 * v + current
            fired = (v >= 1 + 0.5 * b).float()
            v, b = v - fired * (1 + 0.5 * b), 0.9 * b + fired
            out.append(fired)
        return torch.stack(out)


class Untold(BareAdapter):
    states = Adapter.states


class Told(BareAdapter):
    def states(self, neuron: nn.Module) -> tuple[str, ...]:
        return ("membrane", "adaptation")


@pytest.mark.parametrize(("kind", "bits", "named"), [(Untold, 8, ["2"]), (Told, 16, [])])
def test_states_that_nobody_tells_are_named(kind: type[BareAdapter], bits: int, named: list[str]) -> None:
    register(Adapts, kind(Layout.TIME_FIRST))
    try:
        net = nn.Sequential(Repeat(4), PerStep(nn.Linear(6, 8)), Adapts(), PerStep(nn.Linear(8, 3)))
        cost = measure_cost(net, (torch.rand(9, 6) * 4, torch.arange(9) % 3))
    finally:
        unregister(Adapts)
    assert cost.memory.state_bits == 32 * bits
    assert [(item.name, item.of) for item in cost.left_out] == [(name, "states") for name in named]


def test_a_place_that_is_left_out_is_left_out_whole() -> None:
    """One layer sees what comes to a neuron and what it gave."""
    torch.manual_seed(0)
    neuron = pytest.importorskip("spikingjelly.activation_based.neuron")
    layer = pytest.importorskip("spikingjelly.activation_based.layer")
    net = OverTime(
        nn.Sequential(
            nn.Linear(6, 8),
            neuron.IFNode(),
            layer.LinearRecurrentContainer(neuron.IFNode(v_threshold=0.1), 8, 8),
            nn.Linear(8, 3),
        ),
        4,
    )
    found = compare(net, net, (IMAGES, IMAGES[:, 0].long() % 3))
    with FiringRecorder(net) as recorder, torch.no_grad():
        net(IMAGES)
    last = recorder.counts.rates("net.2.sub_module").sum() * 4 * 3
    assert found.synops is not None
    assert last > 0
    assert found.to_dict()["synops"]["overall"]["baseline"] == pytest.approx(float(last))
    assert [item.name for item in found.synops.left_out] == ["net.2.rc"]
