"""Neurons to which estimated levels leave no choice are told, also where the calibration images gave them none."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import isofire
from isofire import QuantSpec
from isofire.neurons import IF, CubaLIF, PerStep, Repeat

DIM, BRIGHT = 0.5, 3.0


def network() -> nn.Module:
    """Four neurons with weights .5, 1.2, 1.5 and -1: of images of 0.5 over one step, none fires."""
    layer = nn.Linear(1, 4, bias=False)
    layer.weight.data = torch.tensor([[0.5], [1.2], [1.5], [-1.0]])
    return nn.Sequential(Repeat(1), PerStep(layer), IF(), PerStep(nn.Linear(4, 2))).eval()


def spikes(model: nn.Module, x: Tensor) -> list[int]:
    with torch.no_grad():
        return model[2](model[1](model[0](x))).sum((0, 1)).int().tolist()  # type: ignore[index]


def quantized(x: Tensor, **membrane: Any) -> nn.Module:
    setting: dict[str, Any] = {"bits": 8, "range": "minmax", "placement": "pre_fire", **membrane}
    return isofire.quantize_(network(), QuantSpec(membrane=setting), x)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("granularity", "told", "fires"),
    [("tensor", "all neurons", [0, 0, 0, 0]), ("channel", "4 of 4 channels", [0, 0, 0, 0])],
)
def test_neurons_that_did_not_fire_and_now_never_can_are_told(
    granularity: str, told: str, fires: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    x, bright = torch.full((5, 1), DIM), torch.full((5, 1), BRIGHT)
    with caplog.at_level(logging.WARNING):
        model = quantized(x, granularity=granularity)
    assert f"2: {told} can never fire, as none did on the calibration images" in caplog.text
    assert spikes(network(), bright) == [5, 5, 5, 0]
    assert spikes(model, bright) == fires


def test_only_those_are(caplog: pytest.LogCaptureFixture) -> None:
    x, bright = torch.full((5, 1), 0.75), torch.full((5, 1), BRIGHT)
    with caplog.at_level(logging.WARNING):
        model = quantized(x, granularity="channel")
    # the third state is 1.125 there
    assert "2: 3 of 4 channels can never fire, as none did" in caplog.text
    assert spikes(model, bright) == [0, 0, 5, 0]


@pytest.mark.parametrize("membrane", [{"range": (-2.0, 2.0)}, {"placement": "post_reset"}])
def test_levels_that_let_them_fire_are_not(membrane: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        model = quantized(torch.full((5, 1), DIM), **membrane)
    assert "can never fire" not in caplog.text
    assert spikes(model, torch.full((5, 1), BRIGHT)) == [5, 5, 5, 0]


def test_neurons_that_always_fired_and_now_always_do_are_told(caplog: pytest.LogCaptureFixture) -> None:
    setting = {"method": "levels", "levels": 3, "granularity": "channel", "placement": "pre_fire"}
    x = torch.linspace(1.5, 3, 20).unsqueeze(1)
    with caplog.at_level(logging.WARNING):
        model = isofire.quantize_(network(), QuantSpec(membrane=setting), x)  # type: ignore[arg-type]
    tops = model[2].membrane.quantizer.levels().amin(1)  # type: ignore[index]
    always = int((tops >= 1).sum())
    assert always
    assert f"2: {always} of 4 channels cannot but fire, as they did" in caplog.text


def test_thresholds_of_each_neuron_are_asked_by_the_lowest(caplog: pytest.LogCaptureFixture) -> None:
    layer = nn.Linear(1, 3, bias=False)
    layer.weight.data.fill_(1.0)
    neuron = CubaLIF(v_threshold=torch.tensor([2.0, 0.3, 2.0]))
    model = nn.Sequential(Repeat(2), PerStep(layer), neuron, PerStep(nn.Linear(3, 2))).eval()
    spec = QuantSpec(membrane={"bits": 8, "range": "minmax", "placement": "pre_fire"})  # type: ignore[arg-type]
    x = torch.full((5, 1), 0.5)
    with caplog.at_level(logging.WARNING):
        isofire.quantize_(model, spec, x)
    assert spikes(model, x)[1] > 0
    assert "can never fire" not in caplog.text
