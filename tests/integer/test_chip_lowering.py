"""Networks lowered onto chips: equal where the chip can, refused by name where it cannot, and what each change does."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from torch import Tensor, nn

from isofire.errors import SpecError
from isofire.export import read_bundle, write_bundle
from isofire.integer import (
    DecayRule,
    HardwareSpec,
    RefusedError,
    differences,
    lower,
    nearest_decay,
    steps_of,
    with_changes,
)
from isofire.integer.chip_neuron import on_chip
from isofire.integer.neuron_form import NeuronForm
from isofire.neurons import IF, LIF, CubaLIF, PerStep

CHIP = {"v_reset": None, "several": True, "synapse": "after_decay"}
"""What Xylo's hidden neurons do."""


def dense(*sizes: int, neuron: Any, last: Any = None, levels: int = 7, scale: float = 0.125) -> nn.Sequential:
    """Linear layers without bias, weights on `2 levels + 1` levels `scale` apart, and neurons."""
    torch.manual_seed(5)
    layers: list[nn.Module] = []
    for place, (before, after) in enumerate(pairwise(sizes)):
        layer = nn.Linear(before, after, bias=False)
        codes = torch.randint(-levels, levels + 1, layer.weight.shape)
        codes[:, 0] = levels
        layer.weight = nn.Parameter(scale * codes)
        layers += [PerStep(layer), last() if last and place == len(sizes) - 2 else neuron()]
    return nn.Sequential(*layers).eval()


def spikes(*shape: int, rate: float = 0.4) -> Tensor:
    torch.manual_seed(7)
    return (torch.rand(shape) < rate).float()


def test_if_neurons_are_exact_on_loihi_through_its_delays() -> None:
    model, x = dense(12, 30, 20, 6, neuron=IF), spikes(15, 8, 12)
    network = lower(model, x, hardware="loihi1")
    assert network.latency["5"] == 3
    found = differences(model, network, [x])
    assert found.total == 0
    assert [float(network.aligned(network.codes(x)).spikes[n].sum()) > 0 for n in network.order] == [True] * 3
    assert network.mapping is not None
    assert network.mapping.refusals == ()


def test_a_weight_far_above_the_others_is_told_with_what_it_costs() -> None:
    model = dense(8, 16, 4, neuron=lambda: IF(v_reset=None, several=True, v_threshold=0.3))
    with torch.no_grad():
        model[2][0].weight.copy_(torch.rand(4, 16) * 0.01 + 0.005)
        model[2][0].weight[0, 0] = 60.0
    said = str(refused(model))
    # 60 takes the code 127, so that what lies below half of 60 / 127 is 0
    assert "; 63 of 64 become 0" in said
    median = float(model[2][0].weight.detach().abs().median())
    assert f"make the largest weights smaller, or clip them: the largest is {60 / median:,.0f} times the median" in said
    with torch.no_grad():
        model[2][0].weight[0, 0] = 0.013
    assert "become 0" not in str(refused(model))


def refused(model: nn.Sequential) -> RefusedError:
    with pytest.raises(RefusedError) as error:
        lower(model, spikes(8, 4, 8), hardware="speck2f")
    return error.value


def test_no_cure_is_to_allow_what_is_allowed_already() -> None:
    model = dense(6, 8, 4, neuron=lambda: CubaLIF(8.0, 3.0, synapse="after_decay", v_reset=None))
    chip = lower(model, spikes(9, 4, 6), hardware="xylo-a2", approximate=True)
    assert chip.mapping is not None
    states = [refusal for refusal in chip.mapping.refusals if refusal.rule == "states"]
    assert states
    assert all("allow" not in refusal.cure for refusal in chip.mapping.refusals)


@pytest.mark.parametrize(
    "neuron", [lambda: IF(v_reset=None, several=True), lambda: IF(v_reset=None, several=True, v_floor=-2.0)]
)
def test_if_neurons_are_exact_on_speck_with_pools(neuron: Any) -> None:
    torch.manual_seed(2)
    model = nn.Sequential(
        PerStep(nn.Conv2d(2, 4, 3, padding=1, bias=False)), neuron(),
        PerStep(nn.AvgPool2d(2), nn.Conv2d(4, 6, 2, bias=False)), neuron(),
        PerStep(nn.Flatten(), nn.Linear(6 * 9, 5, bias=False)), neuron(),
    ).eval()  # fmt: skip
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_((torch.randn_like(parameter) * 3).round().clamp(-7, 7) / 8)
    x = torch.poisson(torch.full((6, 5, 2, 8, 8), 0.4))
    network = lower(model, x, hardware="speck2f")
    found = differences(model, network, [x])
    assert found.total == 0
    assert int(network.run(network.codes(x)).spikes["5"].max()) > 1


def test_a_current_used_before_it_decays_gives_the_same_spikes_as_one_used_after() -> None:
    # 1 / tau is a binary fraction, so that both are exact
    neuron = CubaLIF(4.0, 2.0, v_reset=None, several=True, v_threshold=1.5)
    chip = on_chip("n", NeuronForm.of("n", neuron), HardwareSpec.load("xylo-a2").neuron, output=False)
    assert chip.exact.synapse == "after_decay"
    x = torch.randint(-4, 8, (30, 6, 9)).float()
    assert torch.equal(chip.exact.neuron()(x), neuron(x))
    assert [refusal.rule for refusal in chip.refusals] == []
    loihi = on_chip(
        "n",
        NeuronForm.of("n", CubaLIF(4.0, 2.0, synapse="after_decay")),
        HardwareSpec.load("loihi1").neuron,
        output=True,
    )
    assert torch.equal(loihi.exact.neuron()(x), CubaLIF(4.0, 2.0, synapse="after_decay")(x))


def test_a_current_used_a_step_later_takes_a_step_of_the_chips_delay() -> None:
    model = dense(6, 20, 8, neuron=lambda: CubaLIF(2.0, 2.0, v_reset=None, several=True, synapse="before_input"))
    x = spikes(12, 4, 6)
    network = lower(model, x, hardware="xylo-a2", approximate=("states", "spikes"))
    assert network.latency == {"1": -1, "3": -1, "readout": 0}
    fired = network.aligned(network.codes(x)).spikes["1"]
    expected = model[:2](x)
    assert int(fired[0].sum()) == 0
    assert float((fired != expected).float().mean()) < 0.01


def test_every_refusal_is_listed_at_once_with_its_number() -> None:
    model = nn.Sequential(
        PerStep(nn.Conv2d(1, 40, 3)), LIF(3.0),
        PerStep(nn.AvgPool2d(2), nn.Flatten(), nn.Linear(40 * 9, 700)), LIF(3.0, v_reset=None),
        PerStep(nn.Linear(700, 20)),
    )  # fmt: skip
    with pytest.raises(RefusedError) as caught:
        lower(model, torch.rand(4, 3, 1, 8, 8), hardware="xylo-a2")
    found = {(r.layer, r.rule): r for r in caught.value.refusals}
    assert ("input", "inputs") in found
    assert ("0.0", "layers") in found
    assert ("2.2", "layers") in found
    assert ("4.0", "layers") in found
    assert {rule for layer, rule in found if layer == "1"} >= {"synapse", "decays", "reset", "spikes", "states"}
    hidden = next(r for r in caught.value.refusals if "hidden neurons" in r.says)
    assert f"{40 * 36 + 700:,} are needed, 1,000 there" in hidden.says
    assert all(r.cure for r in caught.value.refusals)
    assert str(caught.value).count("\n") == len(caught.value.refusals) + 1
    # what can be approximated leaves the rest
    with pytest.raises(RefusedError) as caught:
        lower(model, torch.rand(4, 3, 1, 8, 8), hardware="xylo-a2", approximate=True)
    assert {r.rule for r in caught.value.refusals} == {"inputs", "layers", "limits"}


def test_names_of_approximations_are_checked() -> None:
    with pytest.raises(SpecError, match=r"approximate must be True or of weights, .*got 'colour'"):
        lower(dense(3, 4, neuron=IF), spikes(2, 2, 3), hardware="loihi1", approximate=("colour",))
    with pytest.raises(SpecError, match="give hardware="):
        lower(dense(3, 4, neuron=IF), spikes(2, 2, 3), approximate=True)


RULE = DecayRule(kind="shift", bits=4, rounding="floor", least=1)


def test_the_shift_of_a_short_synapse_is_not_zero_and_by_the_time_constants_logarithm_it_is() -> None:
    """tau_syn 0.065 s, dt 0.05 s: round(log2(1.3)) = 0; -log2(1 - exp(-1 / 1.3)) = 0.90."""
    tau = torch.tensor(1.0 / -math.expm1(-1.0 / 1.3), dtype=torch.float64)
    assert int(nearest_decay(RULE, tau, synapse=True).code) == 1
    assert int(nearest_decay(RULE, tau, synapse=True, shift_by="log2").code) == 0
    membrane = torch.tensor(1.0 / -math.expm1(-1.0 / 3.2), dtype=torch.float64)
    assert int(nearest_decay(RULE, membrane, synapse=False).code) == round(-math.log2(-math.expm1(-1.0 / 3.2)))


def silenced(**options: Any) -> Any:
    tau_mem, tau_syn = (1.0 / -math.expm1(-1.0 / steps) for steps in (3.2, 1.3))
    torch.manual_seed(0)
    model = nn.Sequential(
        PerStep(nn.Linear(12, 128, bias=False)), CubaLIF(tau_mem, tau_syn, **CHIP),
        PerStep(nn.Linear(128, 8, bias=False)), CubaLIF(tau_mem, tau_syn, synapse="after_decay", v_reset=None),
    ).eval()  # fmt: skip
    with torch.no_grad():
        model[0][0].weight.copy_(torch.randn(128, 12) * 0.8)
        model[2][0].weight.copy_(torch.randn(8, 128) * 0.2)
    x = spikes(100, 8, 12, rate=0.3)
    network = lower(model, x, hardware="xylo-a3", approximate=True, **options)
    return steps_of(model, network, [(x, torch.zeros(8, dtype=torch.long))]), network


def test_which_rounding_silences_a_network_and_what_mends_it() -> None:
    """The situation of networks that fall silent after quantization: it is the decay, not the weights."""
    steps, network = silenced(shift_by="log2")
    rates = steps.rates()["1"]
    assert rates["float"] > 0.2
    assert rates["chip"] == rates["decays"] == 0.0
    assert abs(rates["weights"] / rates["float"] - 1) < 0.02
    assert abs(rates["thresholds"] / rates["float"] - 1) < 0.02
    assert any("a shift of 0" in r.says and "silent" in r.says for r in network.mapping.refusals)
    assert "silent" in steps.table()
    # the right shift fires again, but more; thresholds that follow the gain bring it back
    steps, _ = silenced()
    more = steps.rates()["1"]
    assert 1.1 < more["chip"] / more["float"] < 1.4
    steps, _ = silenced(gain="l2")
    assert abs(steps.rates()["1"]["chip"] / more["float"] - 1) < 0.06


@pytest.mark.parametrize("synapse", ["before_decay", "after_decay"])
@pytest.mark.parametrize(("tau", "tau_syn", "decay_input"), [(3.7, 1.9, False), (4.0, 4.0, True), (9.0, 1.0, False)])
def test_the_response_is_that_of_a_simulated_impulse(
    synapse: Any, tau: float, tau_syn: float, decay_input: bool
) -> None:
    form = NeuronForm.of("n", CubaLIF(tau, tau_syn, synapse=synapse, decay_input=decay_input))
    v = i = 0.0
    squares = 0.0
    for t in range(2000):
        x = float(t == 0)
        kept = 1 - 1 / tau_syn
        i = (i + x) * kept if synapse == "after_decay" else i * kept + x
        v = v * (1 - 1 / tau) + i / (tau if decay_input else 1.0)
        squares += v * v
    assert float(form.response()) == pytest.approx(math.sqrt(squares), rel=1e-5)


def test_without_changes_the_float_network_is_as_it_was_and_each_change_is_alone() -> None:
    model = dense(12, 40, 8, neuron=lambda: CubaLIF(3.0, 5.0, **CHIP), scale=0.003, levels=300)
    x = spikes(20, 6, 12)
    network = lower(model, x, hardware="xylo-a2", approximate=True)
    assert network.mapping is not None
    assert torch.equal(with_changes(model, network.mapping, ())(x), model(x))
    changed = with_changes(model, network.mapping, ("decays",))
    assert float(changed[1].tau_mem) == 4.0
    assert float(changed[1].tau_syn) == 4.0
    assert torch.equal(changed[0][0].weight, model[0][0].weight)
    rounded = with_changes(model, network.mapping, ("weights",))[0][0].weight
    assert 0 < float((rounded - model[0][0].weight).detach().abs().max()) < 0.003 * 300 / 127 / 2 * 1.01
    steps = steps_of(model, network, [(x, torch.zeros(6, dtype=torch.long))])
    # whatever rounding of states adds is small beside what the decays do
    assert steps.states.layers[0].paired_mae < 0.02 < steps.alone["decays"].layers[0].paired_mae


def test_batch_norms_follow_weights_and_thresholds_of_each_neuron() -> None:
    torch.manual_seed(4)
    model = nn.Sequential(
        PerStep(nn.Linear(10, 40, bias=False), nn.BatchNorm1d(40)), CubaLIF(4.0, 4.0, **CHIP),
        PerStep(nn.Linear(40, 8, bias=False)), CubaLIF(4.0, 4.0, synapse="after_decay", v_reset=None),
    ).eval()  # fmt: skip
    norm = model[0][1]
    with torch.no_grad():
        norm.running_var.uniform_(0.05, 0.4)
        norm.weight.uniform_(-1.0, 1.5)
        model[2][0].weight.mul_(3.0)
    x = spikes(20, 6, 10)
    network = lower(model, x, hardware="xylo-a2", approximate=("weights", "thresholds", "states", "spikes"))
    assert network.mapping is not None
    thresholds = network.populations["1"].threshold
    assert thresholds.shape == (40,)
    # the gain's sign is in the weights, its size in the threshold
    weight = network.connections[0].weight.double() * network.connections[0].step.view(-1, 1)
    gain = (norm.weight / (norm.running_var + norm.eps).sqrt()).double()
    assert torch.allclose(weight / gain.view(-1, 1), model[0][0].weight.double(), atol=float(weight.abs().max()))
    steps = steps_of(model, network, [(x, torch.zeros(6, dtype=torch.long))])
    assert steps.everything.layers[0].paired_mae < 0.02


def test_speck_counts_memory_in_powers_of_two_and_gives_each_layer_a_core() -> None:
    torch.manual_seed(2)
    model = nn.Sequential(
        PerStep(nn.Conv2d(2, 5, 3, bias=False)), IF(v_reset=None, several=True),
        PerStep(nn.Flatten(), nn.Linear(5 * 36, 3, bias=False)), IF(v_reset=None, several=True),
    ).eval()  # fmt: skip
    network = lower(model, spikes(3, 2, 2, 8, 8), hardware="speck2f", approximate=True)
    assert network.mapping is not None
    rows = [(r.name.partition(",")[0], r.used, r.layer) for r in network.mapping.resources.rows if "memory" in r.name]
    # 2 inputs, 9 -> 16 places, 5 -> 8 maps; 5 maps of 6x6 -> 8x8. A dense layer is a kernel of 6x6 -> 64
    assert rows == [
        ("kernel memory", 2 * 16 * 8, "1"), ("neuron memory", 5 * 64, "1"),
        ("kernel memory", 5 * 64 * 4, "3"), ("neuron memory", 3, "3"),
    ]  # fmt: skip
    deep = dense(4, *[4] * 10, neuron=lambda: IF(v_reset=None, several=True))
    with pytest.raises(RefusedError, match="cores: 10 are needed, 9 there"):
        lower(deep, spikes(3, 2, 4), hardware="speck2f", approximate=True)


def test_fan_out_and_inputs_are_counted() -> None:
    model = dense(17, 70, 80, 8, neuron=lambda: CubaLIF(2.0, 2.0, **CHIP))
    with pytest.raises(RefusedError) as caught:
        lower(model, spikes(5, 2, 17), hardware="xylo-a2", approximate=True)
    said = str(caught.value)
    assert "input channels: 17 are needed, 16 there" in said
    assert "1: limits: fan-out of a hidden neuron: 80 are needed, 64 there" in said


def test_more_spikes_a_step_than_the_chip_fires_are_told() -> None:
    model = dense(12, 40, 8, neuron=lambda: CubaLIF(4.0, 4.0, **CHIP))
    with pytest.raises(RefusedError, match=r"a neuron fires \d+ times in a step, the chip's at most 31 times"):
        lower(model, 15 * spikes(20, 6, 12), hardware="xylo-a2")


def test_xylo_takes_no_network_of_outputs_alone() -> None:
    model = dense(6, 8, neuron=lambda: CubaLIF(4.0, 4.0, synapse="after_decay", v_reset=None))
    with pytest.raises(RefusedError, match="1: layers: its one layer of neurons is the output"):
        lower(model, spikes(9, 4, 6), hardware="xylo-a2", approximate=True)


def test_an_unknown_limit_is_refused() -> None:
    with pytest.raises(SpecError, match=r"limits\.moons: unknown key"):
        msgspec.structs.replace(HardwareSpec.load("loihi1"), limits={"moons": 3})


def test_counts_that_a_chip_does_not_take_are_refused_when_it_runs() -> None:
    from isofire.errors import ModelError

    network = lower(dense(3, 4, neuron=IF), spikes(2, 2, 3), hardware="loihi1")
    for wrong in (torch.full((2, 1, 3), 0.5), torch.full((2, 1, 3), -1.0), torch.full((2, 1, 3), 2.0)):
        with pytest.raises(ModelError):
            network(wrong)


def test_a_bundle_keeps_latencies_and_counts(tmp_path: Path) -> None:
    model, x = dense(12, 20, 6, neuron=IF), spikes(9, 4, 12)
    network = lower(model, x, hardware="loihi1")
    write_bundle(tmp_path / "bundle", network, network.codes(x))
    again = read_bundle(tmp_path / "bundle")
    assert torch.equal(again(x), network(x))
    assert again.latency == network.latency
    assert again.encoder == network.encoder


def test_loihi_biases_act_before_the_first_spikes_and_are_said_to() -> None:
    model = dense(5, 8, 6, neuron=IF)
    model[0][0].bias = nn.Parameter(torch.full((8,), 0.125))
    with pytest.raises(RefusedError, match="acts 1 steps before the first spikes arrive"):
        lower(model, spikes(9, 4, 5), hardware="loihi1")


@pytest.mark.parametrize("subtract", [0.0, 1.25])
def test_each_change_of_neurons_that_subtract_another_number_is_measured(subtract: float) -> None:
    """snnTorch's resets on a chip whose neurons fire several times: more spikes can only subtract the threshold."""
    torch.manual_seed(0)

    def neuron() -> CubaLIF:
        return CubaLIF(8.0, 2.0, synapse="after_decay", v_reset=None, v_subtract=subtract)

    net = nn.Sequential(PerStep(nn.Linear(6, 8, bias=False)), neuron(), PerStep(nn.Linear(8, 3, bias=False)), neuron())
    x = torch.randint(0, 4, (20, 5, 6)).float()
    chip = lower(net, x, hardware="xylo-a2", approximate=True)
    says = "never reset" if subtract == 0.0 else "subtracts 1.25 times"
    assert any(says in refusal.says for refusal in chip.mapping.refusals)  # type: ignore[union-attr]
    steps = steps_of(net, chip, [(x, torch.zeros(5, dtype=torch.int64))])
    assert {"reset", "spikes"} <= set(steps.alone)
    assert steps.alone["reset"].overall["emd_layer_mean"] > 0


def test_a_leak_that_a_chip_does_not_have_is_told_as_one_that_never_forgets() -> None:
    net = nn.Sequential(PerStep(nn.Linear(6, 8, bias=False)), LIF(4.0, v_floor=-1.0, decay_input=False))
    x = torch.randint(0, 2, (8, 3, 6)).float()
    with pytest.raises(
        SpecError, match=r"becomes inf .* keep every input for ever; train with neurons that do not leak"
    ):
        lower(net, x, hardware="speck2f")


def weights_refused(model: nn.Sequential, hardware: str, x: Tensor | None = None) -> str:
    with pytest.raises(RefusedError) as caught:
        lower(model, spikes(8, 4, 8) if x is None else x, hardware=hardware)
    return str(next(refusal for refusal in caught.value.refusals if refusal.rule == "weights"))


def test_why_weights_on_levels_are_rounded_is_told_with_a_cure_that_helps() -> None:
    # one step an output, where a population has one unit
    model = dense(8, 6, neuron=IF)
    with torch.no_grad():
        model[0][0].weight.mul_(torch.linspace(0.31, 1.0, 6).sqrt().view(-1, 1))
    said = weights_refused(model, "loihi1")
    assert "each of its outputs has levels of its own, a population of the chip has one unit" in said
    # of 9 bits with sign the even codes are 8 bits of levels
    assert "quantize them to at most 8 bits in training (method lsq, granularity tensor)" in said
    lower(dense(8, 6, neuron=IF, levels=127), spikes(8, 4, 8), hardware="loihi1")
    said = weights_refused(dense(8, 6, neuron=IF, levels=150), "loihi1")
    assert "codes up to 300, the chip's up to 254; quantize them to at most 8 bits" in said


def test_one_output_without_room_leaves_the_codes_of_the_others() -> None:
    model = dense(8, 6, 4, neuron=lambda: CubaLIF(4.0, 4.0, **CHIP), levels=90)
    with torch.no_grad():
        model[0][0].weight[2] *= 1e-5
    said = weights_refused(model, "xylo-a2")
    assert "their levels would fit, but thresholds have no room beside them in 1 of 6 outputs" in said
    chip = lower(model, spikes(8, 4, 8), hardware="xylo-a2", approximate=True)
    step = chip.connections[0].step
    assert step is not None
    values, own = chip.connections[0].weight * step.view(-1, 1), model[0][0].weight.detach().double()
    apart = (values - own).abs().amax(1) / own.abs().amax(1)
    assert apart[[0, 1, 3, 4, 5]].max() < 1e-6
    assert apart[2] > 0.001


def test_states_and_biases_that_leave_weights_no_room_are_named() -> None:
    model = dense(8, 6, 4, neuron=lambda: CubaLIF(64.0, 32.0, **CHIP), levels=90, scale=1.0)
    x = 15 * torch.ones(20, 2, 8)
    with torch.no_grad():
        model[0][0].weight.abs_()
        model[0][0].weight[:, ::2] *= -1 / 90
        model[0][0].weight.copy_(model[0][0].weight.round())
    said = weights_refused(model, "xylo-a2", x)
    assert "states have no room beside them" in said
    assert "times the threshold; train with smaller inputs and weights beside the threshold" in said
    model = dense(8, 6, neuron=lambda: IF(v_reset=None, several=True, v_floor=-1.0), levels=90)
    model[0][0].bias = nn.Parameter(torch.full((6,), 40.0))
    assert "biases have no room beside them in 6 of 6 outputs; train with smaller biases" in weights_refused(
        model, "speck2f"
    )
