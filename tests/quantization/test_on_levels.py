"""A converted network whose weights were changed since takes more bits than its spec says: costs are refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import isofire
from isofire.errors import ModelError
from isofire.firing.cost import measure_cost
from isofire.neurons import IF, LIF, PerStep, Repeat
from isofire.quantization import prepare_, restore_
from isofire.quantization.on_levels import require_levels

DATA = torch.randn(24, 12, generator=torch.Generator().manual_seed(0)), torch.zeros(24, dtype=torch.int64)
ALL = {"first_layer": "quantize", "last_layer": "quantize"}
BIASES = {"method": "fixed", "bits": 6, "fraction": 3}


def network() -> nn.Module:
    torch.manual_seed(0)
    hidden = (PerStep(nn.Linear(12, 20)), LIF(v_threshold=0.3), PerStep(nn.Linear(20, 16)), IF(v_threshold=0.3))
    return nn.Sequential(Repeat(4), *hidden, PerStep(nn.Linear(16, 4))).eval()


def quantized(**values: Any) -> nn.Module:
    return isofire.quantize_(network(), isofire.QuantSpec.from_dict({**ALL, **values}), DATA)


def test_weights_that_were_loaded_over_the_quantized_are_refused() -> None:
    model = quantized(weights={"method": "lsq", "bits": 2})
    assert measure_cost(model, DATA).memory.weights["3.0"].bits == 2
    model.load_state_dict(network().state_dict())
    with pytest.raises(ModelError, match=r"'1\.0' have \d+ values where .* 4 levels at most: .*train the prepared"):
        measure_cost(model, DATA)


def test_weights_that_were_trained_are_refused() -> None:
    model = quantized(weights={"method": "uniform", "bits": 3})
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    model(DATA[0]).square().sum().backward()
    optimizer.step()
    with pytest.raises(ModelError, match="as by training or by loading others"):
        measure_cost(model, DATA)


def test_biases_that_were_changed_are_refused() -> None:
    model = quantized(biases=BIASES)
    assert measure_cost(model, DATA).memory.weights["3.0"].bias_bits < 16 * 32
    with torch.no_grad():
        model.get_submodule("3.0").bias.add_(0.01)  # type: ignore[operator]
    with pytest.raises(ModelError, match=r"biases of '3\.0' are no values of fixed"):
        measure_cost(model, DATA)


@pytest.mark.parametrize(
    "values",
    [
        *({"weights": {"method": "uniform", "bits": bits}} for bits in (1, 2, 4)),
        {"weights": {"method": "uniform", "bits": 3, "grid": "midtread"}},
        {"weights": {"method": "uniform", "bits": 3, "granularity": "channel"}},
        {"weights": {"method": "lqnet", "bits": 2}}, {"weights": {"method": "lqnet", "bits": 4}},
        {"weights": {"method": "lsq", "bits": 8}}, {"weights": {"method": "tawq"}},
        {"weights": {"method": "gptq", "bits": 2}, "correct": "bias"},
        {"weights": {"method": "levels", "levels": 3}}, {"weights": {"method": "levels", "levels": [-0.2, 0.0, 0.3]}},
        {"weights": {"method": "lsq", "bits": 4}, "biases": BIASES},
        {"decays": {"method": "bitshift"}},
    ],
)  # fmt: skip
def test_what_is_still_quantized_passes(values: dict[str, Any]) -> None:
    spec = isofire.QuantSpec.from_dict({**ALL, **values})
    model = isofire.quantize_(network(), spec, DATA)
    require_levels(model)
    again = restore_(network(), spec, converted=True)
    again.load_state_dict(model.state_dict())
    require_levels(again)
    prepared = prepare_(network(), spec)
    require_levels(prepared)
    require_levels(network())
