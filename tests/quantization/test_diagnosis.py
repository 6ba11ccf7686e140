"""What is wrong with a network's firing: each value worked out by hand."""

from __future__ import annotations

import logging
import math

import pytest
import torch
from torch import nn

import isofire
from isofire import QuantSpec
from isofire.adapters import find_neurons
from isofire.errors import ModelError, SpecError
from isofire.neurons import IF, LIF, MembraneQuantizer, PerStep
from isofire.quantization import diagnose
from isofire.quantization.diagnosis.states import counting_states
from isofire.quantization.diagnosis.thresholds import fires_from
from isofire.quantizers import Levels, LQNet, Uniform


def starts(quantizer, placement="pre_fire", threshold=1.0, kind=IF) -> list[float]:
    neuron = kind(v_threshold=threshold)
    ((neuron, adapter),) = find_neurons(neuron).values()
    return fires_from(MembraneQuantizer(quantizer, placement), adapter.threshold(neuron), adapter).flatten().tolist()


@pytest.mark.parametrize(
    ("bits", "low", "expected"),
    # the middle of the two upper levels: 1 - step / 2, the step being (1 - low) / (2^bits - 1)
    [(2, 0.0, 5 / 6), (4, 0.0, 29 / 30), (6, 0.0, 125 / 126), (2, -1.0, 2 / 3), (4, -1.0, 14 / 15), (6, -1.0, 62 / 63)],
)
def test_levels_to_the_nearest_fire_from_the_middle_on(bits: int, low: float, expected: float):
    assert starts(Uniform(bits, range=(low, 1.0), refresh=0)) == pytest.approx([expected], abs=1e-6)
    assert starts(Uniform(bits, range=(low, 1.0), refresh=0), "post_reset") == [1.0]


def test_free_edges_say_where_it_fires():
    assert starts(Levels([0.0, 0.5, 1.2], edges=[0.3, 0.9], channel_axis=1)) == pytest.approx([0.9])
    assert starts(Levels([0.0, 0.5, 0.9], channel_axis=1)) == [math.inf]
    assert starts(Levels([1.5, 2.0], channel_axis=1)) == [-math.inf]
    # IF fires at the threshold itself, which 0.1 in float32 is
    assert starts(Levels([0.0, 0.1], channel_axis=1), threshold=0.1) == pytest.approx([0.05])


def test_each_channel_has_its_own():
    levels = Levels(2, granularity="channel", channel_axis=1, channels=3)
    levels.calibrate(torch.tensor([[0.0, 0.0, 0.0], [1.0, 2.0, 0.5]]))
    assert starts(levels) == pytest.approx([0.5, 1.0, math.inf])


def test_levels_that_learn_have_a_threshold_too():
    quantizer = LQNet(1, granularity="tensor", channel_axis=1)
    quantizer.calibrate(torch.tensor([[-1.0, 1.0, 1.0, -1.0]]))
    low, high = quantizer.levels()[0].tolist()
    assert starts(quantizer) == pytest.approx([(low + high) / 2 if high >= 1 else math.inf], abs=1e-6)


class Given(nn.Module):
    """A layer of neurons that is given currents as they are, images [N, C] at each of `steps` steps."""

    def __init__(self, neuron: nn.Module, steps: int = 1) -> None:
        super().__init__()
        self.neuron, self.steps = neuron, steps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.neuron(x.unsqueeze(0).expand(self.steps, *x.shape))


def quantized(quantizer, placement, steps: int = 1, kind=IF) -> Given:
    net = Given(kind(), steps).eval()
    net.neuron.membrane = MembraneQuantizer(quantizer, placement)
    return net


def test_the_share_of_clipped_states_and_levels_used():
    # one step of an integrator: its potential is its current
    currents = torch.tensor([[-2.0, -1.0, -0.4, 0.1], [0.2, 0.3, 0.6, 1.5]])
    net = quantized(Levels([-1.0, 0.0, 0.5, 1.0], channel_axis=1), "pre_fire")
    (layer,) = diagnose(net, currents).layers
    # -2 lies below the lowest level, 1.5 above the highest
    assert (layer.below, layer.above) == (1 / 8, 1 / 8)
    # taken are -1 (twice), 0 (-0.4, 0.1, 0.2), 0.5 (0.3, 0.6) and 1
    assert (layer.levels, layer.levels_used) == (4, 4)
    assert (layer.neurons, layer.rate, layer.dead) == (4, 1 / 8, 3 / 4)
    assert layer.fires_from == pytest.approx((0.75, 0.75))
    (layer,) = diagnose(net, currents[:1]).layers
    assert layer.levels_used == 2


def test_levels_used_are_those_of_each_channel():
    levels = Levels(2, granularity="channel", channel_axis=1, channels=2)
    levels.calibrate(torch.tensor([[0.0, 0.0], [1.0, 4.0]]))
    # channel 0 takes both of its levels, channel 1 one
    (layer,) = diagnose(quantized(levels, "pre_fire"), torch.tensor([[0.2, 0.3], [0.8, 0.4]])).layers
    assert (layer.levels, layer.levels_used, layer.below, layer.above) == (2, 1.5, 0.0, 0.0)


@pytest.mark.parametrize("placement", ["pre_fire", "post_reset"])
def test_counting_changes_no_spike(placement):
    torch.manual_seed(0)
    net = quantized(Uniform(2, range=(0, 1), refresh=0), placement, steps=5, kind=LIF)
    x = torch.rand(7, 30) * 3
    expected = net(x)
    with counting_states(net) as tallies:
        assert torch.equal(net(x), expected)
    assert tallies["neuron"].states == 5 * 7 * 30
    assert isinstance(net.neuron.membrane.quantizer, Uniform)
    assert torch.equal(net(x), expected)


def test_levels_that_cannot_reach_the_threshold_are_broken_without_data_too():
    net = quantized(Levels([0.0, 0.4, 0.8], channel_axis=1), "pre_fire", steps=3)
    for found in (diagnose(net), diagnose(net, torch.full((4, 2), 0.9))):
        assert not found.healthy
        (fault,) = found.faults
        assert fault.found == "no neuron can fire: at pre_fire the highest level is 0.8, the threshold 1"
        assert "post_reset" in fault.cure
    assert "no data: firing was not looked at" in diagnose(net).table()


def test_a_level_that_always_fires_is_broken():
    (fault,) = diagnose(quantized(Levels([1.0, 2.0], channel_axis=1), "pre_fire")).faults
    assert fault.state == "broken"
    assert "fires at every step" in fault.found


def test_states_that_do_not_add_up_are_named():
    # 0.4 a step fires at the third; stored to the nearest of 0 and 1 it is forgotten after each
    net = quantized(Levels([0.0, 1.0], channel_axis=1), "post_reset", steps=3)
    plain = Given(IF(), 3).eval()
    data = torch.full((20, 2), 0.4)
    found = diagnose(net, data, plain)
    (layer,) = found.layers
    assert (layer.rate, layer.rate_baseline, layer.dead, layer.dead_baseline) == (0.0, 1 / 3, 1.0, 0.0)
    (fault,) = layer.faults
    assert "post_reset, 2 levels from 0 to 1): what is stored from step to step is rounded" in fault.found


def network(bias: float = 0.0) -> nn.Module:
    torch.manual_seed(0)
    net = nn.Sequential(PerStep(nn.Linear(6, 8)), LIF(), PerStep(nn.Linear(8, 5, bias=False)), IF()).eval()
    with torch.no_grad():
        # currents of about 1.1, below 2: a neuron at rest needs two steps or more
        net[0][0].weight.fill_(0.08)
        net[0][0].bias.copy_(torch.linspace(0, 0.4, 8) - bias)
        # as many spikes as there are, and a half more
        net[2][0].weight.fill_(1.5)
    return net


def frames() -> torch.Tensor:
    return torch.rand(4, 30, 6, generator=torch.Generator().manual_seed(1)) * 4


def test_a_silenced_layer_and_what_follows_from_it():
    found = diagnose(network(9.0), frames(), network())
    first, second = found.layers
    assert (first.rate, second.rate) == (0.0, 0.0)
    assert first.rate_baseline > 0 < second.rate_baseline
    assert "its currents are too weak, the highest potential is" in first.faults[0].found
    assert "repair_" in first.faults[0].cure
    # without a bias nothing arrives at the second
    assert second.faults[0].found == "no neuron fires: nothing arrives, since 1 before it is silent"
    assert second.faults[0].cure == "mend that layer first"
    assert found.to_dict()["healthy"] is False
    assert [fault["layer"] for fault in found.to_dict()["faults"]] == ["1", "3"]
    assert found.table().endswith("2 broken")
    assert (found.n_images, found.T) == (30, 4)


def test_a_silent_channel_is_a_note_and_a_layer_silent_by_itself_none():
    broken = network()
    with torch.no_grad():
        broken[0][0].bias[2] = -20
    found = diagnose(broken, frames(), network())
    assert found.healthy
    assert found.layers[0].silent_channels == 1
    assert found.faults[0].found == "1 of 8 channels do not fire, though they do in full precision"
    silent = diagnose(network(9.0), frames(), network(9.0))
    assert (silent.healthy, silent.faults) == (True, ())
    # without a baseline nobody knows
    assert not diagnose(network(9.0), frames()).healthy


def test_what_does_not_go_together_is_refused():
    with pytest.raises(SpecError, match="pass data too"):
        diagnose(network(), baseline=network())
    with pytest.raises(ModelError, match="same layers of neurons"):
        diagnose(network(), frames(), network()[:2])
    with pytest.raises(ModelError, match="spiking neurons"):
        diagnose(nn.Linear(2, 2), torch.rand(3, 2))
    with pytest.raises(SpecError, match="max_images must be at least 1"):
        diagnose(network(), frames(), max_images=0)


# -- at once -----------------------------------------------------------------------------------------------------------


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


def test_calibration_names_a_layer_that_its_levels_silence(caplog: pytest.LogCaptureFixture):
    net = Given(IF(), 3).eval()
    # states after the reset are 0.4, 0.8 and 0: the range is [0, 0.4], so 0.4 is stored for 0.8 too, and with 0.4 more
    # a neuron never comes beyond 0.8
    setting = {"bits": 1, "range": "percentile", "percentile": 60, "signed": False, "placement": "post_reset"}
    isofire.quantize_(net, QuantSpec(membrane=setting), torch.full((64, 4), 0.4))
    (text,) = warnings_of(caplog)
    assert text.startswith(
        "calibration: neuron: no neuron fires because of its membrane quantizer (post_reset, 2 levels "
    )
    assert 'choose its levels by method "firing"' in text


def test_calibration_says_nothing_where_layers_fire_or_never_did(caplog: pytest.LogCaptureFixture):
    setting = {"bits": 4, "range": "minmax", "placement": "post_reset"}
    for current in (0.4, 0.1):
        # 0.1 in three steps never reached the threshold
        isofire.quantize_(Given(IF(), 3).eval(), QuantSpec(membrane=setting), torch.full((64, 4), current))
    assert warnings_of(caplog) == []


def test_by_layer_calibration_names_it_at_once(caplog: pytest.LogCaptureFixture):
    net, steps = network(), []
    spec = QuantSpec(
        weights={"method": "gptq", "bits": 4},
        membrane={"method": "levels", "levels": [-9.0, -8.0], "placement": "post_reset"},
        first_layer="quantize",
        last_layer="quantize",
    )
    isofire.quantize_(net, spec, frames(), on_step=steps.append)
    silent = [step for step in steps if step.done == "gone silent"]
    assert [step.layer for step in silent] == ["1", "3"]
    # of 8 and 5 neurons
    assert [step.share for step in silent] == [8 / 13, 1.0]
    assert str(silent[0]).startswith("1: gone silent (no neuron fires because of")
    assert "post_reset, 2 levels from -9 to -8" in silent[0].note
    first, second, clipped = warnings_of(caplog)
    assert clipped.startswith("calibration: 1: all 256 membrane states on a few images lie above")
    assert first.startswith("calibration: 1: no neuron fires because of its membrane quantizer")
    assert second.startswith("calibration: 3: no neuron fires")


def test_one_cure_of_several_layers_is_said_once():
    net = network()
    for place in ("1", "3"):
        net.get_submodule(place).membrane = MembraneQuantizer(Uniform(2, range=(-1, 1), refresh=0), "pre_fire")  # type: ignore[assignment]
    text = diagnose(net).table()
    assert text.count("it fires from 0.667 on, not from 1") == 2
    assert text.count("-> at pre_fire a level is compared") == 1
