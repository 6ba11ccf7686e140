"""Recurrent layers, whose channels act on each other: what calibration tells of them is what they then do."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

import isofire
from isofire.neurons import LIF, PerStep, Recurrent, Repeat
from isofire.quantization import repair_

STEPS, WIDTH = 8, 24
IMAGES = torch.rand(96, 12, generator=torch.Generator().manual_seed(0)) * 2
LABELS = torch.zeros(96, dtype=torch.int64)


def network() -> nn.Module:
    torch.manual_seed(1)
    back = nn.Linear(WIDTH, WIDTH)
    with torch.no_grad():
        back.weight.mul_(3.0)
    layer = Recurrent(LIF(v_threshold=0.4), back)
    return nn.Sequential(Repeat(STEPS), PerStep(nn.Linear(12, WIDTH)), layer, PerStep(nn.Linear(WIDTH, 4))).eval()


def drift(model: nn.Module) -> float:
    """Mean |change| of the neurons' rates, by the network's own spikes."""
    now, then = (net[2](net[1](net[0](IMAGES))).detach().sum((0, 1)) for net in (model, network()))  # type: ignore[index]
    return float((now - then).abs().mean()) / (len(IMAGES) * STEPS)


@pytest.mark.parametrize(
    "values",
    [
        {"weights": {"method": "lsq", "bits": 3}, "correct": "bias"},
        {"weights": {"method": "gptq", "bits": 2}, "correct": "bias"},
        {"weights": {"method": "lsq", "bits": 2}, "membrane": {"method": "firing", "bits": 2}},
        {
            "weights": {"method": "gptq", "bits": 2},
            "membrane": {"method": "firing", "bits": 3, "granularity": "channel"},
        },
    ],
)
def test_the_drift_that_is_told_is_that_of_the_network(values: dict[str, Any]) -> None:
    steps: list[Any] = []
    spec = isofire.QuantSpec.from_dict({**values, "first_layer": "quantize", "last_layer": "quantize"})
    model = isofire.quantize_(network(), spec, (IMAGES, LABELS), on_step=steps.append)
    last = [step for step in steps if step.layer == "2" and step.after is not None][-1]
    assert last.after == pytest.approx(drift(model), rel=1e-6)
    if "correct" in values:
        assert last.after <= last.before
    order = [step.layer for step in steps]
    # the recurrent weights are what they will be when the layer is looked at
    assert order.index("2.weight") < order.index("2")


def test_a_repair_that_would_make_it_worse_is_none() -> None:
    spec = isofire.QuantSpec(weights={"method": "lsq", "bits": 3}, first_layer="quantize")
    model = isofire.quantize_(network(), spec, (IMAGES, LABELS))
    before = drift(copy.deepcopy(model))
    (found,) = repair_(model, network(), (IMAGES, LABELS))
    assert found.drift_before == pytest.approx(before)
    assert found.drift_after == pytest.approx(drift(model))
    assert found.drift_after <= found.drift_before
