"""Recurrent layers, in integers of their own and on chips that have them: spikes, simulators' numbers, refusals."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scripts.chips.oracle import compared, padded
from scripts.chips.recurrent import CHIPS, frames, network
from tests.integer.test_oracles import cases
from torch import nn

import isofire
from isofire.errors import ModelError
from isofire.integer import IntegerNetwork, RefusedError, differences, lower, steps_of
from isofire.neurons import IF, LIF, CubaLIF, PerStep, Recurrent


@pytest.mark.parametrize("chip", CHIPS)
def test_a_lowered_recurrent_network_gives_its_simulators_numbers(chip: str) -> None:
    theirs: Any = {name: np.array(values) for name, values in cases("recurrent")[chip].items()}  # type: ignore[call-overload]
    _, x, integers = CHIPS[chip]()
    found = compared(chip, integers, padded(integers, x), theirs)
    assert set(found.differ.values()) == {0}
    assert found.fired > 150
    # weights that lead back, changed by one, are seen
    (back, *_) = [link for link in integers.connections if link.target in link.sources]
    back.weight.add_(1)
    assert sum(compared(chip, integers, padded(integers, x), theirs).differ.values()) > 0


def test_integrating_neurons_on_loihi_fire_as_the_float_network_through_delays_and_circles() -> None:
    net, x, integers = CHIPS["loihi"]()
    assert integers.mapping is not None
    assert integers.mapping.refusals == ()
    assert integers.latency["5"] == 3
    assert differences(net, integers, [x]).total == 0
    # without what comes back they would fire otherwise
    plain = nn.Sequential(*[part.cell if isinstance(part, Recurrent) else part for part in net])
    assert not torch.equal(plain(x), net(x))


def test_steps_of_a_recurrent_network_and_what_it_takes_of_the_chip() -> None:
    net, x, integers = CHIPS["xylo"]()
    steps = steps_of(net, integers, [(x, torch.zeros(4, dtype=torch.int64))])
    assert set(steps.alone) <= {"weights", "thresholds"}
    assert abs(steps.states.layers[0].mfr / steps.states.layers[0].mfr_fp - 1) < 0.05
    used = integers.mapping.resources.to_dict()  # type: ignore[union-attr]
    first, between = integers.connections[1].weight, integers.connections[2].weight
    assert used["fan-out of a hidden neuron"]["used"] == int((torch.cat([first, between]) != 0).sum(0).max())


def test_weights_that_lead_back_are_rounded_and_measured_with_the_others() -> None:
    net, x, _ = CHIPS["xylo"]()
    net[1].weight.weight = nn.Parameter(net[1].weight.weight * 1.01 + 0.001)
    integers = lower(net, x, hardware="xylo-imu", approximate=True)
    back = next(link for link in integers.connections if link.target in link.sources)
    assert back.step is not None
    error = back.weight * back.step.view(-1, 1) - net[1].weight.weight.double()
    assert bool((error.abs() <= 0.5001 * back.step.view(-1, 1)).all())
    assert "weights" in {refusal.rule for refusal in integers.mapping.refusals}  # type: ignore[union-attr]
    assert integers.mapping.resources.to_dict()["weights between hidden neurons"]["used"] > 1000  # type: ignore[union-attr]


def test_a_bias_beside_them_is_the_layers() -> None:
    net, x, _ = CHIPS["loihi"]()
    moved = network(lambda _output: IF())
    for part in (net[1], moved[0][0]):
        holder = part.weight if isinstance(part, Recurrent) else part
        holder.bias = nn.Parameter(torch.full((20,), 0.25))
    for part in (net, moved):
        neurons = lower(part, x, hardware="loihi1", approximate=True).populations["1"]
        assert neurons.scale is not None
        assert (neurons.bias * neurons.scale).flatten().tolist() == pytest.approx([0.25] * 20, rel=0.01)


def refused(net: nn.Module, hardware: str) -> str:
    with pytest.raises(RefusedError) as error:
        lower(net, frames(1), hardware=hardware, approximate=True)
    return str(error.value)


def test_chips_without_them_refuse_them() -> None:
    net = network(lambda _output: IF(v_reset=None, several=True, v_floor=-1.0))
    assert "1: layers: its spikes come back to it, the chip has conv, dense, sum_pool" in refused(net, "speck2f")
    with pytest.raises(ModelError, match="'1' fire any number of spikes a step, and what comes back"):
        lower(net, frames(1))


def test_outputs_of_xylo_have_none() -> None:
    net = network(lambda _output: CubaLIF(4.0, 2.0, synapse="after_decay", v_reset=None, several=True))
    net[5] = Recurrent(net[5], nn.Linear(4, 4, bias=False))
    assert "the outputs have recurrent weights, the chip's hidden neurons alone have" in refused(net, "xylo-a2")


def test_a_current_used_a_step_later_comes_back_too_late_on_xylo_and_right_on_loihi() -> None:
    net = network(lambda _output: CubaLIF(4.0, 2.0, v_reset=None, several=True, synapse="before_input"))
    assert "1: delays: its own spikes come back after 2 steps, the chip's after 1" in refused(net, "xylo-a2")
    net = network(lambda _output: CubaLIF(4.0, 2.0, synapse="before_input", v_threshold=2.0))
    x = frames(1)
    integers = lower(net, x, hardware="loihi1", approximate=True)
    assert [link.delay for link in integers.connections if link.target in link.sources] == [2, 2]
    found = differences(net, integers, [x])
    assert found.layers["1"].differ < 0.02 * found.layers["1"].places


def test_convolutions_are_not_recurrent() -> None:
    cell = Recurrent(IF(), nn.Conv2d(2, 2, 3, padding=1, bias=False))
    net = nn.Sequential(PerStep(nn.Conv2d(1, 2, 3, padding=1, bias=False)), cell).eval()
    with pytest.raises(ModelError, match="known between linear layers; '1' has Conv2d and Conv2d"):
        lower(net, torch.ones(4, 2, 1, 5, 5), hardware="loihi1", approximate=True)


KINDS: dict[str, Any] = {
    "if": lambda _output: IF(),
    "if-soft": lambda _output: IF(v_reset=None),
    "lif": lambda _output: LIF(2.0, v_threshold=0.6),
    "lif-rest": lambda _output: LIF(4.0, decay_input=False, v_reset=-0.25),
    "current": lambda _output: CubaLIF(4.0, 2.0, synapse="after_decay", v_reset=None),
    "current-late": lambda _output: CubaLIF(4.0, 2.0, synapse="before_input"),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bits", [None, 3])
def test_without_a_chip_they_fire_as_the_float_network(kind: str, bits: int | None) -> None:
    """Weights that lead back have a step of their own, which is no power of two times the others'."""
    net, x = network(KINDS[kind]), frames(1)
    for place, part in enumerate(net):
        if isinstance(part, Recurrent):
            part.weight.bias = nn.Parameter(torch.full((20,), 0.03 * (place - 2)))
            part.weight.weight = nn.Parameter(part.weight.weight.detach() * 0.7123)
    if bits is not None:
        spec = isofire.QuantSpec(weights={"method": "lsq", "bits": bits}, first_layer="quantize", last_layer="quantize")
        net = isofire.quantize_(net, spec, x)
    integers = lower(net, x)
    found = differences(net, integers, [x])
    assert {name: layer.beyond_float32 for name, layer in found.layers.items()} == dict.fromkeys(("1", "3", "5"), 0)
    assert found.total <= 2
    fired = integers.run(integers.codes(x)).spikes
    assert all(float(spikes.double().mean()) > 0.02 for spikes in fired.values())
    # what comes back is seen: without it they fire otherwise
    links = [link for link in integers.connections if link.target not in link.sources]
    cut = IntegerNetwork(integers.populations, links, integers.input_shape, encoder=integers.encoder)
    assert not torch.equal(cut.run(integers.codes(x)).spikes["3"], fired["3"])


def test_what_comes_back_by_hand() -> None:
    """Threshold 1, input 0.75 a step, -0.4 after a spike: 0.75, 1.5 fires; 0.35, 1.1 fires; 0.35, ..."""
    net = nn.Sequential(PerStep(nn.Linear(1, 1, bias=False)), Recurrent(IF(), nn.Linear(1, 1, bias=False))).eval()
    net[0][0].weight, net[1].weight.weight = (nn.Parameter(torch.tensor([[value]])) for value in (0.75, -0.4))
    integers = lower(net, torch.ones(6, 1, 1), input_bits=8, weight_bits=8)
    trace = integers.run(integers.codes(torch.ones(6, 1, 1)), states=True)
    assert trace.spikes["1"].flatten().tolist() == [0, 1, 0, 1, 0, 1]
    scale = integers.populations["1"].scale
    assert scale is not None
    found = trace.membranes["1"].flatten() * scale.double()
    assert found.tolist() == pytest.approx([0.75, 0.0, 0.35, 0.0, 0.35, 0.0], abs=1e-5)


@pytest.mark.parametrize("by", [2.0**-10, 2.0**-21])
def test_weights_that_lead_back_far_smaller_than_others_still_count(by: float) -> None:
    net, x = network(KINDS["if"]), frames(1)
    for part in net:
        if isinstance(part, Recurrent):
            part.weight.weight = nn.Parameter(part.weight.weight.detach() * 0.9 * by)
    integers = lower(net, x)
    back = next(link for link in integers.connections if link.target in link.sources)
    assert back.step is not None
    error = back.weight * back.step.view(-1, 1) - net[1].weight.weight.detach().double()
    # sums on eighths meet the threshold exactly, so that what comes back decides there
    assert float(error.abs().max()) <= 2.0**-24
    assert by < 2.0**-20 or sum(layer.beyond_float32 for layer in differences(net, integers, [x]).layers.values()) == 0


@pytest.mark.parametrize("placement", ["post_reset", "pre_fire"])
def test_their_quantized_membranes_are_tables_beside_what_comes_back(placement: Any) -> None:
    net, x = network(lambda _output: LIF(2.0, v_threshold=0.6)), frames(1)
    membrane = {"bits": 4, "range": [-2, 2], "placement": placement}
    spec = isofire.QuantSpec(
        weights={"method": "lsq", "bits": 4}, first_layer="quantize", last_layer="quantize", membrane=membrane
    )
    quantized = isofire.quantize_(net, spec, x)
    integers = lower(quantized, x)
    assert all(part.table is not None for part in integers.populations.values())
    found = differences(quantized, integers, [x])
    assert sum(layer.beyond_float32 for layer in found.layers.values()) == 0, found.table()
    assert float(integers.run(integers.codes(x)).spikes["3"].double().mean()) > 0.02
