"""What torch makes new tensors of is the user's choice, and changes nothing of a float32 network."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import isofire
from isofire.neurons import LIF, PerStep, Repeat
from isofire.spec import QuantSpec

MEMBRANE = {"bits": 4, "range": "minmax"}
LSQ = {"method": "lsq", "bits": 4}
SPECS: dict[str, dict[str, Any]] = {
    "uniform": {"weights": {"method": "uniform", "bits": 4}, "membrane": MEMBRANE},
    "lsq": {"weights": LSQ, "membrane": {"method": "lsq", "bits": 3}},
    "lqnet": {"weights": {"method": "lqnet", "bits": 2}, "membrane": {"method": "lqnet", "bits": 2}},
    "levels": {
        "weights": {"method": "levels", "levels": 3},
        "membrane": {"method": "levels", "levels": 4, "placement": "post_reset"},
    },
    "gptq": {"weights": {"method": "gptq", "bits": 4}, "correct": "bias"},
    "firing": {"weights": LSQ, "membrane": {"method": "firing", "bits": 2}},
    "squat": {"weights": LSQ, "membrane": {"method": "squat", "bits": 3}},
    "anchored": {"weights": LSQ, "membrane": {"method": "anchored", "bits": 3}},
}


@pytest.fixture
def wide() -> Iterator[None]:
    yield
    torch.set_default_dtype(torch.float32)


def quantized(model: nn.Module, spec: str, x: Tensor, y: Tensor) -> tuple[dict[str, Tensor], Tensor, float]:
    made = isofire.quantize_(
        copy.deepcopy(model), QuantSpec.from_dict({**SPECS[spec], "first_layer": "quantize"}), (x, y)
    )
    with torch.no_grad():
        out = made(x)
    return made.state_dict(), out, isofire.compare(model, made, (x, y)).overall["emd_layer_mean"]


@pytest.mark.parametrize("spec", SPECS)
def test_a_float32_network_is_quantized_and_compared_alike(spec: str, wide: None) -> None:
    torch.manual_seed(0)
    layers = PerStep(nn.Linear(6, 8), nn.BatchNorm1d(8)), LIF(), PerStep(nn.Linear(8, 8)), LIF(v_threshold=0.4)
    model = nn.Sequential(Repeat(4), *layers, PerStep(nn.Linear(8, 3))).eval()
    x, y = torch.rand(60, 6) * 4, torch.arange(60) % 3
    expected = quantized(model, spec, x, y)
    torch.set_default_dtype(torch.float64)
    found = quantized(model, spec, x, y)
    assert found[0].keys() == expected[0].keys()
    for name, tensor in expected[0].items():
        assert found[0][name].dtype == tensor.dtype
        torch.testing.assert_close(found[0][name], tensor, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(found[1], expected[1], rtol=1e-5, atol=1e-5)
    assert found[2] == pytest.approx(expected[2], abs=1e-6)
