"""Blame: each quantizer alone and all but it are the networks that their specs say; where drift starts."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from torch import nn

from isofire import QuantSpec, compare, quantize_
from isofire.data import load
from isofire.neurons import LIF, PerStep, Repeat
from isofire.study import blame


@pytest.fixture(scope="module")
def net() -> nn.Sequential:
    torch.manual_seed(0)
    net = nn.Sequential(
        Repeat(3), PerStep(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3)), LIF(), PerStep(nn.Conv2d(3, 3, 3)), LIF(),
        PerStep(nn.Flatten(), nn.Linear(48, 20)), LIF(), PerStep(nn.Linear(20, 10)),
    )  # fmt: skip
    with torch.no_grad():
        for layer in (net[3][0], net[5][1]):
            layer.weight *= 4
        net[5][1].bias += 1.5
    images, _ = next(iter(load("digits", "train").batches(64)))
    for _ in range(30):
        net.train()(images)
    return net.eval()


def run(net: nn.Module, spec: QuantSpec):
    train, test = load("digits", "train"), load("digits", "test").first(250)
    return blame(net, spec, train, test, calibration_images=64), (train, test)


def test_alone_and_without_are_what_their_specs_make(net: nn.Sequential) -> None:
    spec = QuantSpec(
        weights={"method": "uniform", "bits": 2, "range": [-3, 3]},
        membrane={"bits": 2, "range": [0, 1], "placement": "pre_fire"},
        reestimate_bn="never",
    )
    found, (train, test) = run(net, spec)
    assert [(item.name, item.target) for item in found.quantizers] == [
        ("2", "membrane"), ("3.0", "weights"), ("4", "membrane"), ("5.1", "weights"), ("6", "membrane"),
    ]  # fmt: skip
    assert found.control is None
    whole = compare(net, quantize_(copy.deepcopy(net), spec, train), test)
    assert found.everything.overall == whole.overall
    conv = found.quantizers[1]
    only = {"rules": [{"match": "3.0", "weights": {"method": "uniform", "bits": 2, "range": [-3, 3]}}]}
    twin = quantize_(copy.deepcopy(net), QuantSpec.from_dict({**only, "reestimate_bn": "never"}), train)
    assert conv.alone.overall == compare(net, twin, test).overall
    rest = {**spec.to_dict(), "rules": [{"match": "3.0", "weights": "float"}]}
    twin = quantize_(copy.deepcopy(net), QuantSpec.from_dict(rest), train)
    assert conv.without is not None
    assert conv.without.overall == compare(net, twin, test).overall
    # nothing before a quantizer drifts, so drift starts at or behind it
    assert conv.emds["2"] == 0
    assert conv.starts == "4"
    assert found.quantizers[0].starts == "2"
    assert found.quantizers[4].emds["4"] == 0 < found.quantizers[4].emds["6"]
    assert found.quantizers[4].worst == "6"
    text = found.table()
    assert max(map(len, text.splitlines())) <= 100
    assert "3.0 weights" in text
    assert json.loads(json.dumps(found.to_dict()))["quantizers"][1]["starts"] == "4"


def test_the_table_calls_the_drift_what_it_is(net: nn.Sequential) -> None:
    spec = QuantSpec(weights={"method": "uniform", "bits": 2}, first_layer="quantize", last_layer="quantize")
    found, _ = run(net, spec)
    layers = found.everything.layers
    # by hand: layers of unlike sizes, of which the mean of the layers is another number
    by_hand = sum(layer.neurons * layer.emd for layer in layers) / sum(layer.neurons for layer in layers)
    assert f"EMD, weighted by neurons: all quantized {by_hand:.5f}" in found.table()
    assert f"{by_hand:.5f}" != f"{sum(layer.emd for layer in layers) / len(layers):.5f}"


def test_what_batch_norm_re_estimated_does_is_no_quantizers(net: nn.Sequential) -> None:
    spec = QuantSpec.from_dict(
        {
            "rules": [
                {"match": "3.0", "weights": {"method": "uniform", "bits": 2, "range": [-3, 3]}},
                {"match": "6", "membrane": {"bits": 2, "range": [0, 1], "placement": "pre_fire"}},
            ]
        }
    )
    found, (train, test) = run(net, spec)
    assert found.control is not None
    conv, last = found.quantizers
    # batch norm before the convolution is re-estimated too, and moves the neurons before it
    assert {layer.layer: layer.emd for layer in found.control.layers}["2"] > 0
    assert conv.emds["2"] == 0
    assert conv.starts == "4"
    # a membrane alone leaves batch norm as it was, so it is held against the baseline
    rule = {"match": "6", "membrane": {"bits": 2, "range": [0, 1], "placement": "pre_fire"}}
    twin = quantize_(copy.deepcopy(net), QuantSpec.from_dict({"rules": [rule]}), train)
    assert last.alone.overall == compare(net, twin, test).overall
    assert conv.without is not None
    assert conv.without.overall == last.alone.overall


def test_the_control_is_shown_where_batch_norm_is_measured_anew(net: nn.Sequential) -> None:
    rule = {"match": "3.0", "weights": {"method": "lsq", "bits": 8}}
    found, _ = run(net, QuantSpec.from_dict({"rules": [rule]}))
    assert found.control is not None
    assert found.control.overall["emd_layer_mean"] > 0
    (only,) = found.quantizers
    assert only.without is None
    assert "batch norm re-estimated only" in found.table()
