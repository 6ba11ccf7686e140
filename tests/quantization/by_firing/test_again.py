"""Layers are calibrated by how the full-precision network fires, which must still be there."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

import isofire
from isofire.adapters import find_neurons
from isofire.errors import ModelError
from isofire.neurons import LIF, PerStep, Repeat
from isofire.quantization import calibrate_, convert, prepare, prepare_
from isofire.quantization.by_firing.fired import firing_of
from isofire.quantization.fake_weights import weight_quantizers
from isofire.quantization.what_fires import what_fires
from isofire.spec import QuantSpec

IMAGES = torch.randn(60, 5, generator=torch.Generator().manual_seed(0)) * 3
FIRING = {"method": "firing", "bits": 2}
LSQ = {"method": "lsq", "bits": 3}


def network(*norms: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    layers = PerStep(nn.Linear(5, 8)), LIF(), PerStep(nn.Linear(8, 6), *norms), LIF(), PerStep(nn.Linear(6, 3))
    return nn.Sequential(Repeat(4), *layers).eval()


@pytest.mark.parametrize(
    ("spec", "norms"),
    [
        ({"weights": {"method": "gptq", "bits": 2}}, []),
        ({"weights": LSQ, "correct": "bias"}, []),
        ({"membrane": {"bits": 4}, "correct": "bias"}, []),
        # the norms in full precision are gone
        ({"weights": LSQ, "membrane": FIRING}, [nn.BatchNorm1d(6)]),
    ],
)
def test_what_was_written_over_is_not_taken_for_full_precision(spec: dict[str, Any], norms: list[nn.Module]) -> None:
    prepared = calibrate_(prepare(network(*norms), QuantSpec(**spec)), IMAGES)
    kept = copy.deepcopy(prepared.state_dict())
    told = "no longer fires as in full precision.*it was calibrated before.*what prepare\\(model, spec\\) gives"
    with pytest.raises(ModelError, match=told):
        calibrate_(prepared, IMAGES)
    assert all(torch.equal(value, kept[name]) for name, value in prepared.state_dict().items())
    # a copy, and what a fresh prepare gives, can be
    with pytest.raises(ModelError, match=told):
        isofire.calibrate(prepared, IMAGES)
    calibrate_(prepare(network(*norms), QuantSpec(**spec)), IMAGES)


def test_a_network_that_was_loaded_is_known_by_its_levels() -> None:
    spec = QuantSpec(weights={"method": "gptq", "bits": 2})
    loaded = prepare(network(), spec)
    loaded.load_state_dict(calibrate_(prepare(network(), spec), IMAGES).state_dict())
    with pytest.raises(ModelError, match="it was calibrated before"):
        calibrate_(loaded, IMAGES)


@pytest.mark.parametrize("spec", [{"weights": {"method": "gptq", "bits": 2}}, {"weights": LSQ, "correct": "bias"}])
def test_a_converted_network_is_refused(spec: dict[str, Any]) -> None:
    converted = convert(calibrate_(prepare(network(), QuantSpec(**spec)), IMAGES))
    with pytest.raises(ModelError, match="its quantized weights are written in already"):
        calibrate_(converted, IMAGES)


def test_where_nothing_was_written_over_the_second_calibration_is_the_first() -> None:
    full, spec = network(), QuantSpec(weights=LSQ, membrane=FIRING)
    prepared = prepare_(copy.deepcopy(full), spec)
    told: list[list[float | None]] = []
    for _ in range(2):
        steps: list[Any] = []
        calibrate_(prepared, IMAGES, on_step=steps.append)
        told.append([step.after for step in steps if step.done == "levels chosen"])
        now, before = firing_of(prepared.eval(), [IMAGES]).counts, firing_of(full, [IMAGES]).counts
        drift = [float((now[name] - before[name]).abs().double().mean()) / (4 * len(IMAGES)) for name in now]
        assert told[-1] == pytest.approx(drift)
    assert told[0] == told[1]


def moved_by_training(prepared: nn.Module) -> None:
    # as an optimizer leaves it; quantizers may learn what they like
    prepared.get_submodule("1.0").parametrizations["weight"].original.data.mul_(0.8)  # type: ignore[index,union-attr]


def moved_norm(prepared: nn.Module) -> None:
    prepared.get_submodule("3.1").running_mean.add_(0.1)  # type: ignore[operator,union-attr]


@pytest.mark.parametrize(("moves", "norms"), [(moved_by_training, []), (moved_norm, [nn.BatchNorm1d(6)])])
def test_weights_that_were_trained_since_are_not_taken_for_full_precision(moves: Any, norms: list[nn.Module]) -> None:
    spec = QuantSpec(weights=LSQ, membrane=FIRING, reestimate_bn="never", first_layer="quantize")
    prepared = calibrate_(prepare(network(*norms), spec), IMAGES)
    calibrate_(isofire.calibrate(prepared, IMAGES), IMAGES)
    for _, quantizer in weight_quantizers(prepared):
        quantizer.step.data.mul_(1.1)  # type: ignore[operator,union-attr]
    calibrate_(prepared, IMAGES)
    moves(prepared)
    for again in (prepared, copy.deepcopy(prepared)):
        with pytest.raises(ModelError, match="calibrated before, and its weights, biases or norms have moved since"):
            calibrate_(again, IMAGES)


def test_levels_from_a_file_may_be_those_of_a_trained_network() -> None:
    spec = QuantSpec(membrane=FIRING)
    loaded = prepare(network(), spec)
    loaded.load_state_dict(calibrate_(prepare(network(), spec), IMAGES).state_dict())
    with pytest.raises(ModelError, match="from a file or state dict, and training may have moved its weights since"):
        calibrate_(loaded, IMAGES)


def test_a_cast_to_a_wider_type_moves_nothing() -> None:
    prepared = calibrate_(prepare(network(), QuantSpec(membrane=FIRING)), IMAGES)
    assert what_fires(prepared) == what_fires(copy.deepcopy(prepared).double())


def test_rounded_constants_are_part_of_what_levels_are_held_against() -> None:
    spec = QuantSpec(membrane=FIRING, thresholds={"method": "fixed", "bits": 4, "fraction": 1})
    full, steps = network(), []
    for _, (neuron, _) in find_neurons(full).items():
        neuron.set_threshold_(torch.tensor(0.7))  # type: ignore[operator]
    prepared = prepare(full, spec)
    rounded = copy.deepcopy(full)
    for _, (neuron, _) in find_neurons(rounded).items():
        neuron.set_threshold_(torch.tensor(0.5))  # type: ignore[operator]
    calibrate_(prepared, IMAGES, on_step=steps.append)
    now, before = firing_of(prepared.eval(), [IMAGES]).counts, firing_of(rounded, [IMAGES]).counts
    drift = [float((now[name] - before[name]).abs().double().mean()) / (4 * len(IMAGES)) for name in now]
    assert [step.after for step in steps if step.done == "levels chosen"] == pytest.approx(drift)


def test_a_calibration_that_failed_can_be_tried_again() -> None:
    prepared = prepare(network(), QuantSpec(weights={"method": "gptq", "bits": 2}, correct="bias"))
    with pytest.raises(ModelError, match="fails on inputs"):
        calibrate_(prepared, IMAGES[:, :4])
    calibrate_(prepared, IMAGES)
