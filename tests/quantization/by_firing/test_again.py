"""Layers are calibrated by how the full-precision network fires, which must still be there."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

import isofire
from isofire.errors import ModelError
from isofire.neurons import LIF, PerStep, Repeat
from isofire.quantization import calibrate_, convert, prepare, prepare_
from isofire.quantization.by_firing.fired import firing_of
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


def test_a_calibration_that_failed_can_be_tried_again() -> None:
    prepared = prepare(network(), QuantSpec(weights={"method": "gptq", "bits": 2}, correct="bias"))
    with pytest.raises(ModelError, match="fails on inputs"):
        calibrate_(prepared, IMAGES[:, :4])
    calibrate_(prepared, IMAGES)
