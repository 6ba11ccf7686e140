"""Weights are loaded into a network that is quantized as the one was that they were written from, or not at all."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import isofire
from isofire.errors import CheckpointError
from isofire.neurons import LIF, PerStep, Repeat
from isofire.quantization import restore_
from isofire.training import load_weights, save_weights

X, Y = torch.randn(40, 16, generator=torch.Generator().manual_seed(0)), torch.arange(40) % 5
EDGES = {"first_layer": "quantize", "last_layer": "quantize"}
W4 = {"weights": {"method": "uniform", "bits": 4}, **EDGES}
M2 = {"membrane": {"bits": 2, "range": (-1.0, 1.0), "placement": "post_reset"}}


def build() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(Repeat(4), PerStep(nn.Linear(16, 20)), LIF(), PerStep(nn.Linear(20, 5))).eval()


@pytest.mark.parametrize(
    ("written", "other", "says"),
    [
        (W4, {"weights": {"method": "lqnet", "bits": 4}, **EDGES}, '"method": "lqnet"'),
        (W4, {"weights": {"method": "uniform", "bits": 2}, **EDGES}, '"bits": 2'),
        (M2, {"membrane": {"bits": 8, "range": (-1.0, 1.0), "placement": "post_reset"}}, '"bits": 8'),
        (M2, {"membrane": {"bits": 2, "range": (-2.0, 2.0), "placement": "post_reset"}}, "2.0"),
        (M2, {"membrane": {"bits": 2, "range": (-1.0, 1.0), "placement": "pre_fire"}}, '"pre_fire"'),
        (W4, None, "in full precision"),
    ],
)
def test_another_spec_is_refused_and_nothing_is_loaded(
    tmp_path: Path, written: dict[str, Any], other: dict[str, Any] | None, says: str
) -> None:
    path = save_weights(tmp_path / "w.safetensors", isofire.quantize_(build(), isofire.QuantSpec(**written), (X, Y)))
    network = build() if other is None else restore_(build(), isofire.QuantSpec(**other), converted=True)
    before = copy.deepcopy(network.state_dict())
    with pytest.raises(CheckpointError, match="quantized in another way") as caught:
        load_weights(path, network)
    assert says in str(caught.value)
    assert "rules" not in str(caught.value)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize("written", [W4, M2, W4 | M2])
def test_the_same_spec_gives_the_same_network(tmp_path: Path, written: dict[str, Any]) -> None:
    spec = isofire.QuantSpec(**written)
    quantized = isofire.quantize_(build(), spec, (X, Y))
    path = save_weights(tmp_path / "w.safetensors", quantized)
    network = restore_(build(), isofire.QuantSpec.from_dict(spec.to_dict()), converted=True).eval()
    load_weights(path, network)
    assert torch.equal(network(X), quantized(X))


def test_full_precision_weights_go_into_a_network_of_quantized_states(tmp_path: Path) -> None:
    path = save_weights(tmp_path / "w.safetensors", build())
    network = isofire.prepare(build(), isofire.QuantSpec(**M2))
    names = network.state_dict().keys() == build().state_dict().keys()
    if names:
        load_weights(path, network)
    else:
        with pytest.raises(CheckpointError, match="another architecture"):
            load_weights(path, network)


def test_compensated_weights_keep_the_hash_that_they_had_before_there_was_reconstruction() -> None:
    plain = isofire.QuantSpec(weights={"method": "gptq", "bits": 2})
    asked = isofire.QuantSpec(weights={"method": "gptq", "bits": 2, "reconstruct": 5})
    assert "reconstruct" not in plain.to_dict()["weights"]
    assert plain.hash() != asked.hash()
    assert isofire.QuantSpec.from_dict(asked.to_dict()) == asked
