"""Lowered networks: the same spikes as the float network's, counted; and what has no integers is refused."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import isofire
from isofire.errors import ModelError, SpecError
from isofire.integer import Connection, differences, lower
from isofire.models import SEWResNet, open_model
from isofire.neurons import IF, LIF, CubaLIF, Neuron, ParametricLIF, PerStep, Repeat
from isofire.quantizers import LSQ, Uniform
from isofire.quantizers.lattice import codes_of


def net(neuron: Any, T: int = 4) -> nn.Sequential:
    """Two convolutions with batch norms, a pool and a linear layer, for digits 8x8; statistics and gains vary."""
    torch.manual_seed(3)
    model = nn.Sequential(
        Repeat(T), PerStep(nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6)), neuron(),
        PerStep(nn.AvgPool2d(2), nn.Conv2d(6, 8, 2, bias=False), nn.BatchNorm2d(8)), neuron(),
        PerStep(nn.Flatten(), nn.Linear(32, 10)),
    )  # fmt: skip
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.uniform_(-0.1, 0.1)
                module.running_var.uniform_(0.05, 0.1)
                module.weight.uniform_(-1.0, 1.5)
                module.bias.uniform_(-0.1, 0.6)
    return model.eval()


def quantized(model: nn.Module, **spec: Any) -> nn.Module:
    spec = {"weights": {"method": "lsq", "bits": 4}, "reestimate_bn": "never", "first_layer": "quantize"} | spec
    return isofire.quantize_(model, isofire.QuantSpec(**spec), digits())


def digits() -> Tensor:
    return next(iter(isofire.data.load("digits", "test").first(40).batches(40)))[0]


@pytest.mark.parametrize("bits", [2, 4, 7])
@pytest.mark.parametrize("grid", ["endpoint", "midtread", "twos_complement", "midrise"])
def test_codes_are_found_on_every_grid(grid: Any, bits: int) -> None:
    quantizer = Uniform(bits, grid=grid, range=(-0.7, 0.7))
    weight = quantizer(torch.randn(20, 30))
    found = codes_of(weight, 16)
    assert found.exact
    assert (found.codes * found.step.view(-1, 1) - weight).abs().max() < 2e-7
    # levels without a 0 are odd numbers
    assert int(found.codes.abs().max()) <= 2**bits
    assert (grid in ("endpoint", "midrise")) == bool((found.codes % 2 == 1).all()) or bits == 2


@pytest.mark.parametrize("codes", [[7, 12], [9, -15], [255, 254], [100, 77, 231]])
@pytest.mark.parametrize("step", [1.0, 0.0371])
def test_a_few_points_of_a_lattice_are_enough(codes: list[int], step: float) -> None:
    """Codes without neighbours, whose common divisor is not among their distances."""
    found = codes_of(torch.tensor([codes]) * step, 24)
    divisor = math.gcd(*codes)
    assert found.exact
    assert found.codes.tolist() == [[code // divisor for code in codes]]
    assert float(found.step) == pytest.approx(step * divisor, rel=1e-6)


@pytest.mark.parametrize("shape", [(64, 64), (8, 3), (1, 4)])
def test_random_weights_lie_on_no_lattice(shape: tuple[int, int]) -> None:
    assert not codes_of(torch.randn(shape), 24).exact


def test_codes_have_a_step_for_each_output_where_levels_have() -> None:
    quantizer = LSQ(4, granularity="channel", channels=5)
    weight = torch.randn(5, 40) * torch.tensor([0.1, 1.0, 3.3, 0.02, 0.5]).view(-1, 1)
    quantizer.calibrate(weight)
    found = codes_of(quantizer(weight).detach(), 16)
    assert found.exact
    assert int(found.codes.abs().max()) <= 8
    assert found.step.unique().numel() == 5


def test_weights_in_full_precision_are_rounded_and_said_to_be() -> None:
    weight = torch.randn(4, 50)
    found = codes_of(weight, 16)
    assert not found.exact
    assert ((found.codes * found.step.view(-1, 1) - weight).abs() <= found.step.view(-1, 1) / 2 + 1e-12).all()


NEURONS = {
    "if": lambda: IF(), "if-soft": lambda: IF(v_reset=None), "lif": lambda: LIF(2.0),
    "lif-3": lambda: LIF(3.0, decay_input=False), "plif": lambda: ParametricLIF(2.7),
    "rest": lambda: LIF(2.0, v_threshold=0.6, v_reset=-0.25),
    "several": lambda: IF(v_reset=None, several=True, v_floor=-0.5, v_threshold=0.3),
}  # fmt: skip


@pytest.mark.parametrize("kind", NEURONS)
def test_every_neuron_fires_as_in_floating_point(kind: str) -> None:
    model = quantized(net(NEURONS[kind]))
    found = differences(model, lower(model, digits()), [digits()])
    assert found.images == 40
    assert {name: layer.beyond_float32 for name, layer in found.layers.items()} == {"2": 0, "4": 0}
    # of 40 images, 4 steps and 376 neurons
    assert found.total <= 3
    spikes = lower(model, digits()).run(lower(model, digits()).codes(digits())).spikes
    assert all(spikes[name].double().mean() > 0.01 for name in ("2", "4"))


@pytest.mark.parametrize(
    "membrane",
    [
        {"bits": 4, "range": [-1, 1], "placement": "post_reset"},
        {"bits": 3, "range": [-2, 2], "placement": "pre_fire"},
        {"bits": 5, "range": "minmax", "placement": "post_reset", "granularity": "channel"},
        {"method": "levels", "bits": 2, "placement": "post_reset"},
    ],
)
def test_membranes_on_levels_become_tables(membrane: dict[str, Any]) -> None:
    model = quantized(net(lambda: LIF(2.0)), membrane=membrane)
    network = lower(model, digits())
    assert all(population.table is not None for population in network.populations.values())
    found = differences(model, network, [digits()])
    assert sum(layer.beyond_float32 for layer in found.layers.values()) == 0, found.table()
    assert found.total <= 3


@pytest.mark.parametrize("placement", ["pre_fire", "post_reset"])
def test_a_level_at_the_threshold_fires_beside_any_biases(placement: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    # many of them, so that few binary digits are left to a code
    spikes = torch.randint(0, 2, (6, 40, 20), generator=generator).float()
    spikes[0, 0, 0] = 60
    torch.manual_seed(0)
    model = nn.Sequential(PerStep(nn.Linear(20, 30)), IF(v_threshold=1.0), PerStep(nn.Linear(30, 4))).eval()
    membrane = {"bits": 3, "range": [-1.5, 1.5], "placement": placement, "grid": "midtread"}
    spec = isofire.QuantSpec(weights={"method": "lsq", "bits": 4}, membrane=membrane, first_layer="quantize")
    quantized = isofire.quantize_(model, spec, spikes)
    # the threshold is a level, in floating point too
    assert float((quantized[1].membrane.quantizer.levels() - 1.0).abs().min()) == 0.0
    integers = lower(quantized, spikes)
    population = integers.populations["1"]
    assert population.rules.state_bits == 32
    assert int(population.threshold.min()) < 2**21
    assert population.table is not None
    held = population.table.levels.expand(30, -1)
    assert torch.equal((held == population.threshold.view(-1, 1)).sum(1), torch.ones(30, dtype=torch.int64))
    assert differences(quantized, integers, [spikes]).layers["1"].beyond_float32 == 0


def test_a_coarse_grid_of_inputs_is_counted_and_named() -> None:
    model = quantized(net(lambda: LIF(2.0)), first_layer="float")
    coarse = lower(model, digits(), input_bits=3, weight_bits=4)
    found = differences(model, coarse, [digits()])
    assert found.layers["2"].beyond_float32 > 100
    lines = found.table().splitlines()
    assert max(map(len, lines)) <= 100
    assert "real inputs: 3 bits" in " ".join(lines)
    assert "weights of '1.0' are in full precision" in " ".join(lines)
    assert differences(model, lower(model, digits()), [digits()]).layers["2"].beyond_float32 == 0


def test_recorders_and_comparisons_take_it() -> None:
    model = quantized(net(lambda: LIF(2.0)))
    network = lower(model, digits())
    with isofire.FiringRecorder(network) as recorder:
        logits = network(digits())
    whole = network.run(network.codes(digits())).spikes["4"]
    assert torch.equal(recorder.counts.rates("4").flatten(), whole.double().mean((0, 1)).flatten())
    assert torch.allclose(logits, model(digits()), atol=1e-4)
    test = isofire.data.load("digits", "test").first(40)
    drift = isofire.compare(model, network, test)
    # what a spike costs is known of the float network, whose weights can be followed
    assert "give the network that it was lowered from" in str(drift.reached)
    assert "SynOps" in drift.table()
    assert {layer.layer: layer.values["emd"] for layer in drift.layers} == {"2": 0.0, "4": 0.0}


def test_states_are_as_narrow_as_their_bound_says() -> None:
    model = quantized(net(lambda: LIF(2.0)))
    network = lower(model, digits(), input_bits=6)
    assert [population.rules.state_bits for population in network.populations.values()] == [32, 32]
    trace = network.run(network.codes(digits()), states=True)
    assert all(int(v.abs().max()) < 2**31 for v in trace.membranes.values())


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (lambda: nn.Sequential(Repeat(2), PerStep(nn.Conv2d(1, 2, 3), nn.ReLU()), LIF()), "ReLU.*no integer"),
        (
            lambda: nn.Sequential(Repeat(2), PerStep(nn.Conv2d(1, 2, 3), nn.Conv2d(2, 2, 1)), LIF()),
            "no neurons between",
        ),
        (lambda: nn.Sequential(Repeat(2), LIF(), PerStep(nn.Flatten(), nn.Linear(64, 10))), "must follow"),
        (lambda: isofire.models.sew_resnet8(connect="and", in_channels=1), "joins by 'and'"),
        (lambda: nn.ModuleList([LIF()]), "SEWResNet, nn\\.Sequential"),
        (lambda: lower(net(LIF), digits()), "one of integers already; lower the network that it was lowered from"),
    ],
)
def test_what_has_no_integers_is_refused(model: Any, said: str) -> None:
    with pytest.raises(ModelError, match=said):
        lower(model().eval(), torch.ones(2, 1, 8, 8))


def test_a_subclass_of_a_neuron_and_bits_out_of_range_are_refused() -> None:
    class Mine(LIF):
        pass

    with pytest.raises(ModelError, match="none of IF, LIF, ParametricLIF"):
        lower(net(Mine), digits())
    with pytest.raises(SpecError, match=r"weight_bits must lie in 2\.\.32, got 33"):
        lower(net(LIF), digits(), weight_bits=33)


def test_inputs_beyond_the_example_are_refused() -> None:
    network = lower(net(LIF), digits() / 4)
    with pytest.raises(ModelError, match="inputs must lie within"):
        network(digits() * 4)


def test_the_packaged_network_with_its_own_quantization_fires_the_same(cifar10_root: Path) -> None:
    model, _ = open_model(Path("sew_resnet8-cifar10"))
    train, test = (isofire.data.load("cifar10", split, root=cifar10_root) for split in ("train", "test"))
    spec = isofire.QuantSpec(weights={"method": "lsq", "bits": 4})
    model = isofire.quantize_(copy.deepcopy(model), spec, train.first(64))
    images = next(iter(test.first(6).batches(6)))[0]
    network = lower(model, images)
    found = differences(model, network, [images])
    assert set(found.layers) == {name for name, module in model.named_modules() if isinstance(module, Neuron)}
    assert found.images == 6
    assert found.total == 0, found.table()


@pytest.mark.parametrize("groups", [1, 3])
def test_sums_beyond_float64_are_exact(groups: int) -> None:
    weight = torch.randint(-9, 10, (6, 6 // groups, 3, 2))
    to = {"sources": ("input",), "target": "n", "kind": "conv", "stride": (2, 1), "padding": (1, 2), "dilation": (1, 2)}
    x = torch.randint(-9, 10, (2, 6, 7, 8))
    narrow = Connection(weight=weight, groups=groups, **to)
    wide = Connection(weight=weight * 2**27, groups=groups, **to)
    assert torch.equal(wide.sums([x * 2**22]), narrow.sums([x]) * 2**49)


@pytest.mark.parametrize("synapse", ["before_decay", "after_decay", "before_input"])
@pytest.mark.parametrize("soft", [False, True])
def test_current_based_neurons_give_the_float_networks_spikes(synapse: Any, soft: bool) -> None:
    """Biases of layers and batch norms go through the current, as inputs do."""

    def neuron() -> CubaLIF:
        return CubaLIF(4.0, 2.0, synapse=synapse, v_reset=None if soft else 0.0, decay_input=soft, v_threshold=0.5)

    model = quantized(net(neuron, T=8), weights={"method": "lsq", "bits": 4})
    integers = lower(model, digits())
    found = differences(model, integers, [digits()])
    assert all(float(fired.double().mean()) > 0.01 for fired in integers.run(integers.codes(digits())).spikes.values())
    assert found.total <= 2e-5 * sum(layer.places for layer in found.layers.values())
    assert not any("decay" in note for notes in integers.notes.values() for note in notes)


def test_the_current_of_one_neuron_step_by_step() -> None:
    """Input 8, tau_syn 2, tau_mem 4: I = 8, 4, 2, 1, and V = 3 V / 4 + I, which stays below 11."""
    model = nn.Sequential(PerStep(nn.Linear(1, 1, bias=False)), CubaLIF(4.0, 2.0, v_threshold=11.0))
    model[0][0].weight = nn.Parameter(torch.tensor([[8.0]]))
    integers = lower(model, torch.tensor([1.0, 0, 0, 0]).view(4, 1, 1), input_bits=8, weight_bits=5)
    part = integers.populations["1"]
    trace = integers.run(integers.codes(torch.tensor([1.0, 0, 0, 0]).view(4, 1, 1)), states=True)
    assert part.scale is not None
    assert (trace.currents["1"].flatten() * part.scale.double()).tolist() == [8.0, 4.0, 2.0, 1.0]
    assert (trace.membranes["1"].flatten() * part.scale.double()).tolist() == [8.0, 10.0, 9.5, 8.125]
    assert int(trace.spikes["1"].sum()) == 0


def test_constants_of_neurons_within_a_channel_have_no_integers() -> None:
    model = nn.Sequential(PerStep(nn.Conv2d(1, 2, 3)), CubaLIF(torch.linspace(2.0, 4.0, 36).view(6, 6)))
    with pytest.raises(ModelError, match="neurons of one channel of '1' have constants of their own"):
        lower(model, torch.ones(4, 1, 1, 8, 8))


def test_what_a_spike_subtracts_may_be_another_number_than_the_threshold() -> None:
    """V = 3, 6 -> fires at 5, minus 4; 2 + 3 -> fires; 1 + 3, 4 + 3 -> fires; by hand."""
    model = nn.Sequential(PerStep(nn.Linear(1, 1, bias=False)), CubaLIF(IF_TAU, 1.0, **SUBTRACTS))
    model[0][0].weight = nn.Parameter(torch.tensor([[3.0]]))
    x = torch.ones(5, 1, 1)
    assert model(x).flatten().tolist() == [0.0, 1.0, 1.0, 0.0, 1.0]
    integers = lower(model, x)
    assert torch.equal(integers(x), model(x))
    part = integers.populations["1"]
    assert part.scale is not None
    found = integers.run(integers.codes(x), states=True).membranes["1"].flatten() * part.scale.double()
    assert found.tolist() == pytest.approx([3.0, 2.0, 1.0, 4.0, 3.0], abs=1e-5)


IF_TAU = 1e30
SUBTRACTS: dict[str, Any] = {"v_reset": None, "v_threshold": 5.0, "v_subtract": 4.0}


def test_only_a_soft_reset_of_single_spikes_subtracts_so_and_chips_refuse_it() -> None:
    for other in ({"v_reset": 0.0}, {"several": True}):
        with pytest.raises(SpecError, match="v_subtract needs a soft reset"):
            CubaLIF(2.0, 2.0, **{**SUBTRACTS, **other})
    with pytest.raises(ModelError, match="knows no v_subtract"):
        CubaLIF(2.0, 2.0, backend="native", **SUBTRACTS)(torch.ones(2, 1, 1))
    layers = [PerStep(nn.Linear(4, 4, bias=False)), CubaLIF(8.0, 2.0, synapse="after_decay", **SUBTRACTS)]
    model = nn.Sequential(*layers, *copy.deepcopy(layers))
    with pytest.raises(SpecError, match=r"1: reset: a spike subtracts 0\.8 times the threshold"):
        lower(model, torch.ones(4, 2, 4), hardware="xylo-a2", approximate=("weights", "thresholds", "states", "spikes"))


def test_sums_too_wide_for_64_bits_are_rounded_once() -> None:
    """32-bit weights and inputs beside Python's integers, which have no width."""
    generator = torch.Generator().manual_seed(2)
    most = 2**31 - 1
    weight = torch.randint(-most, most + 1, (8, 300), generator=generator)
    x = torch.randint(-most, most + 1, (3, 300), generator=generator)
    shift = torch.tensor([-9, -16, -17, -20, -30, -32, -47, -62])
    found = Connection(sources=("input",), target="n", weight=weight, shift=shift).sums([x])
    for image in range(3):
        for out in range(8):
            whole = sum(a * b for a, b in zip(weight[out].tolist(), x[image].tolist(), strict=True))
            right = -int(shift[out])
            assert int(found[image, out]) == (whole + (1 << (right - 1))) >> right
    small = Connection(sources=("input",), target="n", weight=weight[:2] >> 20, shift=torch.tensor([3, -1])).sums([x])
    whole = (x * (weight[0] >> 20)).sum(1), (x * (weight[1] >> 20)).sum(1)
    assert torch.equal(small, torch.stack([whole[0] << 3, (whole[1] + 1) >> 1], 1))


def test_sums_that_leave_64_bits_are_refused_with_the_bound() -> None:
    to = Connection(sources=("input",), target="n", weight=torch.tensor([[2**30]]), shift=30)
    assert int(to.sums([torch.tensor([[3]])])) == 3 * 2**60
    with pytest.raises(ModelError, match=r"sums into 'n' reach 5\.76e\+18, beyond 2\^62"):
        to.sums([torch.tensor([[5]])])


def test_dense_weights_in_full_precision_and_slow_currents_fit_too() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(PerStep(nn.Linear(64, 32)), CubaLIF(10.0, 3.0))
    x = torch.rand(20, 3, 64)
    network = lower(model, x)
    assert bool((torch.as_tensor(network.connections[0].shift) < 0).all())
    found = differences(model, network, [x])
    assert float(network(x).mean()) > 0.01
    assert found.layers["1"].beyond_float32 == 0


def test_states_that_would_be_too_coarse_are_refused_with_the_numbers() -> None:
    model = nn.Sequential(PerStep(nn.Linear(64, 32)), CubaLIF(10.0, 3.0, v_threshold=1e-8))
    with pytest.raises(ModelError, match="give fewer input_bits or weight_bits") as error:
        lower(model, torch.rand(20, 3, 64))
    needed, there = (int(word) for word in str(error.value).split() if word.isdigit())
    assert needed > there


def test_where_differences_begin_is_told_from_what_is_inherited() -> None:
    model = quantized(net(lambda: LIF(2.0)), first_layer="float")
    found = differences(model, lower(model, digits(), input_bits=3, weight_bits=4), [digits()])
    first, second = found.layers["2"], found.layers["4"]
    assert first.begun == first.beyond_float32 > 100
    assert second.begun == 0 < second.beyond_float32
    assert "inherited" in found.table()


class _Halved(nn.Conv2d):
    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return super().forward(input) * 0.5


class _Louder(SEWResNet):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(2 * x)


def test_code_that_integers_would_leave_out_is_refused() -> None:
    images = torch.rand(4, 1, 8, 8)

    def net(conv: nn.Module) -> nn.Module:
        made = nn.Sequential(Repeat(2), PerStep(conv), IF(v_threshold=0.5), PerStep(nn.Flatten(), nn.Linear(72, 3)))
        spec = isofire.QuantSpec(weights={"method": "lsq", "bits": 4}, first_layer="quantize", last_layer="quantize")
        return isofire.quantize_(made.eval(), spec, images)

    lower(net(nn.Conv2d(1, 2, 3)), images)
    with pytest.raises(ModelError, match=r"'1\.0' \(_Halved\) has a forward of its own"):
        lower(net(_Halved(1, 2, 3)), images)
    hooked = net(nn.Conv2d(1, 2, 3))
    hooked[1].register_forward_hook(lambda _m, _i, output: output * 0.5)  # type: ignore[index]
    with pytest.raises(ModelError, match=r"'1' \(PerStep\) has a hook"):
        lower(hooked, images)
    with pytest.raises(ModelError, match=r"'the network' .* has a forward of its own"):
        lower(_Louder((1,), (4,), neuron=IF, in_channels=1).eval(), images)


def test_spikes_and_pixels_stay_the_numbers_that_they_are() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(PerStep(nn.Linear(12, 8)), LIF(2.0, v_threshold=0.5)).eval()
    spikes = torch.randint(0, 2, (6, 5, 12)).float()
    for bits in (None, 2):
        network = lower(model, spikes, input_bits=bits)
        assert torch.equal(network.codes(spikes), spikes.to(torch.int64))
        assert differences(model, network, [spikes]).layers["1"].beyond_float32 == 0
    pixels = torch.randint(0, 256, (6, 5, 12)).float()
    network = lower(model, pixels)
    assert torch.equal(network.codes(pixels), pixels.to(torch.int64))
    assert not any("real inputs" in note for notes in network.notes.values() for note in notes)
    with pytest.raises(ModelError, match=r"whole numbers of spikes >= 0, got others; .* an example of real inputs"):
        network(pixels + 0.5)
    # an input of the largest has the largest code, in few bits too
    assert int(lower(model, pixels / 255, input_bits=2).codes(torch.ones(1, 1, 12)).max()) == 1


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ({"kernel_size": 3, "padding": "valid"}, {"padding": 0}),
        ({"kernel_size": (3, 5), "padding": "same"}, {"padding": (1, 2)}),
        ({"kernel_size": (2, 3), "padding": "same", "dilation": 2}, {"padding": (1, 2)}),
    ],
)
def test_padding_by_name_is_that_many_zeros(given: dict[str, Any], meant: dict[str, Any]) -> None:
    def network(**settings: Any) -> nn.Module:
        torch.manual_seed(0)
        conv = nn.Conv2d(2, 4, **settings)
        size = conv(torch.zeros(1, 2, 8, 8)).numel()
        return nn.Sequential(Repeat(3), PerStep(conv), LIF(v_threshold=0.1), PerStep(nn.Flatten(), nn.Linear(size, 3)))

    x = torch.rand(5, 2, 8, 8, generator=torch.Generator().manual_seed(1))
    named, counted = (lower(network(**settings), x) for settings in (given, {**given, **meant}))
    assert torch.equal(named(x), counted(x))
    assert named(x).std() > 0
    with pytest.raises(ModelError, match=r"'1\.0' pads by 'same', zeros, where integers are known of as many zeros"):
        lower(network(kernel_size=2, padding="same"), x)
    with pytest.raises(ModelError, match=r"'1\.0' pads by \(1, 1\), circular"):
        lower(network(kernel_size=3, padding=1, padding_mode="circular"), x)


@pytest.mark.parametrize(
    ("example", "said"),
    [
        (torch.zeros(10, 0, 6), r"one at least, got \[10, 0, 6\]"),
        (torch.zeros(10, 4, 6).numpy(), "got ndarray"),
        (torch.ones(10, 4, 7), "fails on inputs .* layer '0.0', Linear"),
        (torch.full((10, 4, 6), math.nan), "infinite or none"),
    ],
)
def test_examples_that_tell_nothing_are_refused(example: Any, said: str) -> None:
    with pytest.raises(ModelError, match=said):
        lower(nn.Sequential(PerStep(nn.Linear(6, 8)), LIF()).eval(), example)


def test_weights_that_are_no_numbers_or_far_too_large_are_refused_by_name() -> None:
    model = nn.Sequential(PerStep(nn.Linear(6, 8, bias=False)), LIF(2.0, v_threshold=0.3)).eval()
    model[0][0].weight.data[0, 0] = 1e30  # type: ignore[index,operator]
    with pytest.raises(ModelError, match=r"the states of '1' need .* far larger than others"):
        lower(model, torch.ones(4, 2, 6))
    model[0][0].weight.data[0, 0] = math.nan  # type: ignore[index,operator]
    with pytest.raises(ModelError, match=r"'0\.0\.weight' of Sequential has 1 NaN"):
        lower(model, torch.ones(4, 2, 6))
    with pytest.raises(ModelError, match="has no neurons"):
        lower(nn.Sequential(PerStep(nn.Linear(6, 3))), torch.ones(4, 2, 6))


def test_a_norm_at_the_end_gives_each_output_its_own_gain() -> None:
    """Outputs are read in one unit; the float network's logits are the right ones."""
    torch.manual_seed(0)
    head = nn.BatchNorm1d(4)
    model = nn.Sequential(PerStep(nn.Linear(6, 8)), LIF(2.0, v_threshold=0.3), PerStep(nn.Linear(8, 4), head)).eval()
    with torch.no_grad():
        head.running_var.uniform_(0.1, 5.0)  # type: ignore[union-attr]
        head.running_mean.uniform_(-1.0, 1.0)  # type: ignore[union-attr]
        head.weight.uniform_(-2.0, 2.0)
        head.bias.uniform_(-1.0, 1.0)
    x = torch.rand(5, 7, 6)
    assert float((lower(model, x)(x) - model(x)).detach().abs().max()) < 1e-5


def test_a_decay_that_is_no_binary_fraction_is_told_in_numbers_that_can_be_read() -> None:
    """1/3 of 2^20 is 349,525 1/3: a millionth of it is left out; 1/4 is exact."""
    torch.manual_seed(0)
    net = nn.Sequential(PerStep(nn.Linear(3, 2)), CubaLIF(4.0, 3.0), PerStep(nn.Linear(2, 2)), LIF(3.0)).eval()
    notes = lower(net, torch.rand(4, 2, 3)).notes
    said = [note for name in ("1", "3") for note in notes[name] if "decay" in note]
    assert said == [
        f"{what} with time constant 3 is no binary fraction: 349,525 of 2^20 parts are lost a step, which is off by "
        "1e-06 of it"
        for what in ("a current's decay", "a decay")
    ]
    assert any("real inputs: 32 bits, step 2^-31" in note for note in notes["1"])


@pytest.mark.parametrize("norm", [False, True])
def test_a_readout_keeps_the_few_bits_of_outputs_with_steps_of_their_own(norm: bool) -> None:
    """Codes of 4 bits, each output's step as a factor; one output is tiny, one without weights."""
    torch.manual_seed(6)
    layers = [nn.Linear(20, 5), *([nn.BatchNorm1d(5)] if norm else [])]
    model = nn.Sequential(PerStep(nn.Linear(9, 20)), IF(), PerStep(*layers)).eval()
    with torch.no_grad():
        model[0][0].weight.mul_(3.0)
        model[2][0].weight *= torch.tensor([1.0, 0.3, 2e-4, 0.0, 1.7]).unsqueeze(1)
        if norm:
            model[2][1].weight.uniform_(-1.0, 1.5)
            model[2][1].bias.uniform_(-1.0, 1.0)
    x = (torch.rand(6, 8, 9) < 0.4).float()
    spec = isofire.QuantSpec(weights={"method": "lsq", "bits": 4}, last_layer="quantize", reestimate_bn="never")
    made = isofire.quantize_(model, spec, x)
    integers = lower(made, x)
    (link,) = (link for link in integers.connections if link.target == "readout")
    assert int(link.weight.abs().max()) <= 8
    assert "readout" not in integers.notes
    wanted = copy.deepcopy(isofire.convert(made)).double()(x.double()).detach()
    assert float(integers.run(integers.codes(x)).spikes["1"].double().mean()) > 0.05
    assert float((integers(x).double() - wanted).abs().max() / wanted.abs().max()) < 2e-7


def test_bits_are_refused_beside_a_chip_which_has_its_own() -> None:
    model, x = nn.Sequential(PerStep(nn.Linear(4, 3, bias=False)), IF()), torch.ones(3, 2, 4)
    for given in ({"input_bits": 4}, {"weight_bits": 4}):
        with pytest.raises(SpecError, match="a chip has its own"):
            lower(model, x, hardware="loihi1", **given)  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="infinite or none"):
        lower(model, x * math.nan, hardware="loihi1", approximate=True)
