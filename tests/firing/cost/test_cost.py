"""Cost by brute force: every synapse of small networks visited one by one."""

from __future__ import annotations

import copy
import itertools
import json
import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from isofire import QuantSpec, quantize_
from isofire.adapters import OverTime
from isofire.errors import SpecError
from isofire.firing import FiringRecorder
from isofire.firing.cost import SOURCES, EnergyConstants, Percentiles, measure_cost, memory_of, reach, synops
from isofire.firing.cost import energy as energy_module
from isofire.models import build
from isofire.neurons import IF, LIF, PerStep, Repeat

IMAGES = torch.randn(7, 2, 5, 5, generator=torch.Generator().manual_seed(1)) * 2
LABELS = torch.zeros(7, dtype=torch.int64)


class Residual(nn.Module):
    """Direct coding, a strided convolution on a residual sum (values up to 2), and a linear layer."""

    def __init__(self, once: bool = True) -> None:
        super().__init__()
        self.once, self.repeat = once, Repeat(3)
        self.stem = nn.Conv2d(2, 3, 3, padding=1)
        self.first = IF()
        self.mid = nn.Conv2d(3, 3, 3, padding=1, groups=3)
        self.second = LIF()
        self.down = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.third = IF()
        self.head = nn.Linear(36, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.repeat(self.stem(x)) if self.once else self._steps(self.stem, self.repeat(x))
        first = self.first(x)
        x = first + self.second(self._steps(self.mid, first))
        return self.head(self.third(self._steps(self.down, x)).flatten(2))

    @staticmethod
    def _steps(layer: nn.Module, x: Tensor) -> Tensor:
        return layer(x.flatten(0, 1)).unflatten(0, x.shape[:2])


@pytest.fixture
def net() -> Residual:
    torch.manual_seed(0)
    net = Residual().eval()
    with torch.no_grad():
        for layer in (net.stem, net.mid, net.down):
            layer.weight *= 4
            layer.weight[layer.weight.abs() < 0.2] = 0
    return net


def visited(layer: nn.Conv2d, x: np.ndarray) -> tuple[float, float, int]:
    """One input [C, H, W] walked through synapse by synapse: value over all and non-zero weights, active synapses."""
    weight, (stride, _), pad = layer.weight.detach().numpy(), layer.stride, layer.padding[0]  # type: ignore[misc]
    outputs, per_group = weight.shape[:2]
    size = (x.shape[1] + 2 * pad - 3) // stride + 1  # type: ignore[operator]
    total = nonzero = 0.0
    active = 0
    for o, y, z in itertools.product(range(outputs), range(size), range(size)):
        group = o // (outputs // layer.groups)
        for c, i, j in itertools.product(range(per_group), range(3), range(3)):
            row, column = y * stride + i - pad, z * stride + j - pad  # type: ignore[operator]
            if 0 <= row < x.shape[1] and 0 <= column < x.shape[2]:
                value = x[group * per_group + c, row, column]
                total += value
                nonzero += value * (weight[o, c, i, j] != 0)
                active += (value != 0) * (weight[o, c, i, j] != 0)
    return total, nonzero, active


def inputs_of(net: nn.Module, layer: nn.Module) -> np.ndarray:
    """Inputs [T, N, ...] of a layer that sees [T * N, ...]."""
    kept = []
    handle = layer.register_forward_pre_hook(lambda _, args: kept.append(args[0]))
    with torch.no_grad():
        net(IMAGES)
    handle.remove()
    return kept[0].unflatten(0, (-1, len(IMAGES))).numpy()


@pytest.mark.parametrize("batch_size", [7, 3])
def test_synaptic_operations_synapse_by_synapse(net: Residual, batch_size: int) -> None:
    cost = measure_cost(net, (IMAGES, LABELS), batch_size=batch_size)
    found = {layer.name: layer for layer in cost.synapses}
    assert [found[name].event_driven for name in ("stem", "mid", "down", "head")] == [False, True, True, True]
    per_image = np.zeros(7)
    for name in ("mid", "down"):
        layer, x = getattr(net, name), inputs_of(net, getattr(net, name))
        walks = np.array([[visited(layer, image) for image in step] for step in x])
        assert found[name].synops == Percentiles.of(walks[..., 0].sum(0))
        assert found[name].synops_nonzero == Percentiles.of(walks[..., 1].sum(0))
        dense = visited(layer, np.ones_like(x[0, 0]))[0]
        assert found[name].effective == pytest.approx(walks[..., 2].mean() / dense)
        events = (x != 0).sum((2, 3, 4))
        assert found[name].events == Percentiles.of(events.sum(0))
        assert found[name].events_per_step == tuple(Percentiles.of(step) for step in events)
        per_image += walks[..., 0].sum(0)
    assert inputs_of(net, net.down).max() == 2, "the residual sum must be graded for this test to mean anything"
    assert found["down"].events.mean < found["down"].synops.mean
    with torch.no_grad():
        kept: list[Tensor] = []
        net.third.register_forward_hook(lambda _m, _i, out: kept.append(out))
        net(IMAGES)
    spikes = kept[0].flatten(2).sum(2).numpy()
    per_image += 5 * spikes.sum(0)
    assert cost.synops == Percentiles.of(per_image)
    assert cost.neurons[-1].spikes == Percentiles.of(spikes.sum(0))
    assert cost.neurons[-1].spikes_per_step == tuple(Percentiles.of(step) for step in spikes)
    assert cost.neurons[-1].aer_bits == pytest.approx(spikes.sum(0).mean() * 6)  # 36 neurons need 6 bits
    assert 0 < found["mid"].effective_sparsity < 1


def test_the_first_layer_multiplies_once_or_at_every_step(net: Residual) -> None:
    expected = int(visited(net.stem, np.ones((2, 5, 5)))[0])
    repeated = Residual(once=False).eval()
    repeated.load_state_dict(net.state_dict())
    for model in (net, repeated):
        cost = measure_cost(model, (IMAGES, LABELS))
        assert (cost.macs("once"), cost.macs("every_step")) == (expected, 3 * expected)
        assert cost.synapses[0].synops.max == 0
    frames = torch.randn(3, 7, 2, 5, 5)
    changing = nn.Sequential(PerStep(nn.Conv2d(2, 3, 3)), IF(), PerStep(nn.Flatten(), nn.Linear(27, 2)))
    cost = measure_cost(changing, (frames, LABELS))
    assert cost.macs("once") == cost.macs("every_step") == 3 * 3 * 9 * 18


def test_layers_called_step_by_step_cost_the_same(net: Residual) -> None:
    """A model of one step inside `OverTime`, with neurons that keep no state, gives the same sums."""

    class Fires(nn.Module):
        """Not isofire's: one step a call."""

        def forward(self, x: Tensor) -> Tensor:
            return (x > 0).float()

    from isofire.adapters import Adapter, Layout, register, unregister

    class FiresAdapter(Adapter):
        def layout(self, neuron: nn.Module) -> Layout:
            return Layout.STEP

        def threshold(self, neuron: nn.Module) -> Tensor:
            return torch.zeros(())

        def host(self, neuron: nn.Module) -> type:
            raise NotImplementedError

    register(Fires, FiresAdapter())
    try:
        step = nn.Sequential(nn.Conv2d(2, 3, 3), Fires(), nn.Flatten(), nn.Linear(27, 4))
        cost = measure_cost(OverTime(step, 3), (IMAGES, LABELS))
        with torch.no_grad():
            spikes = (step[0](IMAGES) > 0).flatten(1).sum(1)
        assert cost.T == 3
        assert cost.synops == Percentiles.of(3 * 4 * spikes.numpy())
    finally:
        unregister(Fires)


@pytest.mark.parametrize("layer", [
    nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2), nn.Conv2d(4, 2, 3, dilation=2), nn.Linear(5, 3),
    nn.Conv1d(4, 3, 3, padding=2, padding_mode="circular"), nn.Conv3d(4, 2, 2), nn.ConvTranspose2d(4, 3, 3, 2, 1, 1),
])  # fmt: skip
def test_a_spike_costs_the_outputs_that_it_reaches(layer: nn.Module) -> None:
    shapes = {nn.Linear: (5,), nn.Conv1d: (4, 6), nn.Conv3d: (4, 3, 3, 3)}
    shape = shapes.get(type(layer), (4, 6, 7))
    with torch.no_grad():
        layer.weight.fill_(1)
        layer.bias.zero_()
        eye = torch.eye(int(np.prod(shape))).view(-1, *shape)
        expected = layer(eye).flatten(1).sum(1)
    layer.weight.data[0] = 0
    net = nn.Sequential(IF(v_threshold=0.5), PerStep(layer))
    assert torch.equal(reach(net, torch.rand(3, 2, *shape))["0"].float(), expected)
    images = torch.rand(3, 2, *shape)
    cost = measure_cost(net, (images, LABELS[:2]))
    spikes = (net[0](images) != 0).float().flatten(2).sum((0, 1))
    assert cost.synops.mean == pytest.approx(float(spikes @ expected) / 2)
    assert cost.synapses[0].synops_nonzero.mean < cost.synapses[0].synops.mean


@pytest.mark.parametrize("setting", [{"method": "lsq", "bits": 3}, {"method": "lqnet", "bits": 2},
                                     {"method": "uniform", "bits": 4, "granularity": "tensor"}])  # fmt: skip
def test_memory_at_its_real_bits(setting: dict) -> None:
    model = build({"builder": "sew_resnet8", "width": 0.25, "T": 2, "in_channels": 2})
    spec = QuantSpec(weights=setting, membrane={"bits": 5, "range": [-1, 1], "placement": "post_reset"})
    plain = measure_cost(model, (IMAGES, LABELS)).memory
    quantized = quantize_(copy.deepcopy(model), spec, (IMAGES, LABELS))
    found = measure_cost(quantized, (IMAGES, LABELS)).memory
    floats = {"stem", "fc"}
    numel = {name: layer.weight.numel() for name, layer in model.named_modules() if hasattr(layer, "stride")}
    numel["fc"] = model.fc.weight.numel()
    assert {name: item.bits for name, item in found.weights.items()} == {
        name: 32 if name in floats else setting["bits"] for name in numel
    }
    assert sum(item.weights * item.bits for item in plain.weights.values()) == 32 * sum(numel.values())
    channels = [getattr(model.get_submodule(name), "out_channels", 0) for name in numel if name not in floats]
    tables = {"lsq": sum(channels), "lqnet": 2 * sum(channels), "uniform": 2 * len(channels)}[setting["method"]]
    assert sum(item.table_bits for item in found.weights.values()) == 32 * tables
    neurons = {name: item.neurons for name, item in found.states.items()}
    assert found.state_bits == 5 * sum(neurons.values())
    assert plain.state_bits == 32 * sum(neurons.values())
    assert plain.norm_bits == 64 * sum(m.num_features for m in model.modules() if isinstance(m, nn.BatchNorm2d))
    assert memory_of(quantized, neurons) == found


def test_ternary_weights_of_each_step_are_stored_and_skipped_on_their_own() -> None:
    torch.manual_seed(0)
    model = build({"builder": "sew_resnet8", "width": 0.25, "T": 2, "in_channels": 2})
    plain = measure_cost(model, (IMAGES, LABELS))
    quantized = quantize_(model, QuantSpec(weights={"method": "tawq", "steps": 2}), (IMAGES, LABELS))
    cost = measure_cost(quantized, (IMAGES, LABELS))
    name = "stages.1.0.conv1"
    assert cost.memory.weights[name].weights == 2 * plain.memory.weights[name].weights
    assert cost.memory.weights[name].bits == 2
    layer = next(item for item in cost.synapses if item.name == name)
    weight = quantized.get_submodule(name).weight.detach()
    kept = []
    handle = quantized.get_submodule(name).register_forward_pre_hook(lambda _, args: kept.append(args[0]))
    with torch.no_grad():
        quantized(IMAGES)
        handle.remove()
        ones = [nn.functional.conv2d(kept[0][t], (weight[t] != 0).float(), stride=2, padding=1).sum() for t in (0, 1)]
    assert kept[0].sum() > 0
    assert layer.synops_nonzero.mean == pytest.approx(float(sum(ones)) / 7)


def test_energy_is_the_constants_times_the_operations(net: Residual) -> None:
    cost = measure_cost(net, (IMAGES, LABELS))
    found = cost.energy()
    assert found.accumulates == pytest.approx(0.9 * cost.synops.mean)
    assert found.macs == pytest.approx(4.6 * cost.macs("once"))
    assert cost.energy(first_layer="every_step").macs == pytest.approx(3 * found.macs)
    assert cost.energy(skip_zero_weights=True).accumulates < found.accumulates
    neurons = sum(layer.neurons for layer in cost.neurons)
    assert found.updates == pytest.approx(2 * 0.9 * 3 * neurons)
    # every memory here is below 8 KiB: 10 pJ for 64 bits
    assert found.states == pytest.approx(10 * 3 * neurons * 2 * 32 / 64)
    assert found.weights == pytest.approx(10 * (cost.synops.mean + cost.macs("once")) * 32 / 64)
    dear = cost.energy(constants=EnergyConstants(fp32_add=9.0))
    assert dear.accumulates == pytest.approx(10 * found.accumulates)
    assert found.total == pytest.approx(sum(vars(found).values()))


def test_fewer_bits_cost_less_and_float_is_the_same_work_at_32_bits() -> None:
    torch.manual_seed(0)
    model = build({"builder": "sew_resnet8", "width": 0.25, "T": 2, "in_channels": 2})
    model.train()(IMAGES)
    spec = QuantSpec(weights={"method": "lsq", "bits": 4}, last_layer="quantize", first_layer="quantize")
    cost = measure_cost(quantize_(model, spec, (IMAGES, LABELS)), (IMAGES, LABELS))
    real, floating = cost.energy(), cost.energy(at="float")
    assert 0 < real.macs < floating.macs
    assert 0 < real.weights < floating.weights
    # 8-bit inputs times 4-bit weights, summed over 18 of them in 4 + 5 bits
    unit = 0.2 * 4 * 8 / 64 + 0.03 * 9 / 8
    pixels, averages = cost.synapses[0], cost.synapses[-1]
    # a spike goes through an average as one event
    assert averages.event_driven
    assert averages.macs_once == 0
    assert averages.synops.mean > 0
    assert real.macs == pytest.approx(unit * pixels.macs_once)


def test_every_constant_has_its_source() -> None:
    assert set(SOURCES) == set(vars(EnergyConstants()))
    c = EnergyConstants()
    assert c.access(8 * 8 * 1024, 64) == 10
    assert c.access(8 * 8 * 1024 + 1, 64) == 20
    assert c.access(1e9, 128) == 2600
    assert energy_module.HOROWITZ in SOURCES["memory_dram"]


@pytest.mark.parametrize(
    ("name", "value"),
    [("fp32_add", -1.0), ("memory_8kb", math.nan), ("int8_mul", "x"), ("memory_word_bits", 0), ("input_bits", 0)],
)
def test_a_constant_that_is_none_is_refused(name: str, value: object) -> None:
    with pytest.raises(SpecError, match=f"{name} must be a finite number"):
        EnergyConstants(**{name: value})  # type: ignore[arg-type]


def test_reach_explains_the_measured_operations(net: Residual) -> None:
    with FiringRecorder(net) as recorder, torch.no_grad():
        net(IMAGES)
    cost = measure_cost(net, (IMAGES, LABELS))
    found = synops(recorder.counts, reach(net, IMAGES[:2]))
    assert sum(found.values()) == pytest.approx(cost.synops.mean, rel=1e-12)
    assert min(found.values()) > 0


@pytest.mark.parametrize("connect", ["add", "and", "iand"])
def test_reach_needs_a_linear_path(connect: str) -> None:
    torch.manual_seed(0)
    model = build({"builder": "sew_resnet8", "width": 0.25, "T": 2, "in_channels": 2, "connect": connect})
    images = torch.randn(4, 2, 8, 8) * 3
    model.train()(images)
    model.eval()
    reached = reach(model, images[:2])
    # what does not lie behind a product is exact all the same
    behind = {"stages.1.0.conv1", "stages.1.0.conv_down", "stages.2.0.conv1", "stages.2.0.conv_down", "fc"}
    left = set() if connect == "add" else behind
    assert {item.name for item in reached.left_out} == left
    assert all("mul" in item.reason for item in reached.left_out)
    with FiringRecorder(model) as recorder, torch.no_grad():
        model(images)
    found = synops(recorder.counts, reached)
    cost = measure_cost(model, (images, LABELS[:4]))
    events = sum(layer.synops.mean for layer in cost.synapses if layer.name not in left)
    assert events > 0
    assert sum(found.values()) == pytest.approx(events)
    assert cost.synops.mean == pytest.approx(sum(layer.synops.mean for layer in cost.synapses))


def test_table_and_dict(net: Residual) -> None:
    cost = measure_cost(net, (IMAGES, LABELS))
    text = cost.table()
    assert max(map(len, text.splitlines())) <= 120
    assert f"{cost.synops.mean:,.0f}" in text
    stored = json.loads(json.dumps(cost.to_dict()))
    assert stored["synops"]["p99"] == cost.synops.p99
    assert stored["energy_pj"]["real"]["total"] == cost.energy().total


def test_a_bias_that_layers_share_is_stored_once() -> None:
    first, second, last = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)
    second.weight, second.bias = first.weight, first.bias
    last.bias = first.bias
    model = nn.Sequential(first, LIF(), second, LIF(), last)
    # two weights of 16 and one bias of 4
    assert memory_of(model, {}).weight_bits == 32 * (16 + 16 + 4)


@pytest.mark.parametrize("kind", [nn.RNN, nn.GRU, nn.LSTM])
def test_a_batch_first_recurrent_layer_is_counted_whole(kind: type[nn.RNNBase]) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.neuron, self.layer = nn.Linear(4, 6), LIF(), kind(6, 5, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            spikes = self.neuron(self.first(x).expand(3, -1, -1))
            return self.layer(spikes.transpose(0, 1).contiguous())[0].transpose(0, 1)

    found = measure_cost(Net(), (torch.rand(5, 4) * 8, torch.zeros(5, dtype=torch.int64)))
    assert found.left_out == ()


def test_spikes_that_are_turned_in_place_stay_events() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.neuron, self.last = nn.Linear(4, 6), LIF(), nn.Linear(6, 5)

        def forward(self, x: Tensor) -> Tensor:
            spikes = self.neuron(self.first(x).expand(3, -1, -1))
            self.spikes = float(spikes.sum())
            return self.last(spikes.unsqueeze_(0).squeeze_(0))

    model, data = Net(), (torch.rand(5, 4) * 8, torch.zeros(5, dtype=torch.int64))
    with torch.no_grad():
        model(data[0])
    spikes = model.spikes
    found = measure_cost(model, data)
    assert found.left_out == ()
    assert found.synops.mean == pytest.approx(spikes * 5 / 5)


@pytest.mark.parametrize("norm", ["factor", "offset", "both", "batch norm", "none", "whole factor"])
def test_pixels_that_a_network_normalises_are_multiplied(norm: str) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.neuron, self.last, self.norm = (
                nn.Conv2d(1, 4, 3),
                LIF(),
                nn.Linear(64, 3),
                nn.BatchNorm2d(1),
            )
            self.norm.running_mean.fill_(100.0)

        def forward(self, x: Tensor) -> Tensor:
            forms = {"factor": x / 255, "offset": x - 128.5, "both": (x / 255 - 0.13) / 0.31, "none": x}
            forms |= {"batch norm": self.norm(x), "whole factor": 2 * x}
            return self.last(self.neuron(self.conv(forms[norm]).expand(3, -1, -1, -1, -1)).flatten(2))

    images = torch.randint(0, 256, (5, 1, 6, 6), generator=torch.Generator().manual_seed(0)).float()
    first = measure_cost(Net(), (images, torch.zeros(5, dtype=torch.int64))).synapses[0]
    # each of 16 places takes 9 pixels to 4 channels
    fan = torch.nn.functional.conv_transpose2d(torch.ones(1, 1, 4, 4), 4 * torch.ones(1, 1, 3, 3))
    events = float((images * fan).sum()) / 5 * (2 if norm == "whole factor" else 1)
    whole = norm in ("none", "whole factor")
    assert first.macs_once == (0 if whole else 16 * 9 * 4)
    assert first.synops.mean == pytest.approx(events if whole else 0)


@pytest.mark.parametrize(
    ("biases", "steps"),
    [({"method": "uniform", "bits": 4}, 2), ({"method": "fixed", "bits": 4, "fraction": 3}, 0)],
    ids=["uniform", "fixed"],
)
def test_the_step_of_rounded_biases_is_stored_beside_them(biases: dict[str, object], steps: int) -> None:
    model = nn.Sequential(PerStep(nn.Linear(20, 16)), LIF(), PerStep(nn.Linear(16, 3))).eval()
    data = torch.rand(6, 8, 20) * 2, torch.arange(8) % 3
    spec = QuantSpec(biases=biases, first_layer="quantize", last_layer="quantize")  # type: ignore[arg-type]
    rounded = quantize_(model, spec, data)
    # a scale of each layer's largest; fixed point has none
    expected = 32 * (20 * 16 + 16 * 3) + 4 * (16 + 3) + 32 * steps
    assert measure_cost(rounded, data).memory.weight_bits == expected
