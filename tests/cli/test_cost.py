"""`isofire cost`: the numbers of `measure_cost`, of one network and of two."""

from __future__ import annotations

import json

import pytest

from isofire import data
from isofire.firing.cost import CostComparison, measure_cost
from isofire.models import load_model

MODEL = "model.safetensors"
IMAGES = ("--data", "digits", "--n", "20", "--device", "cpu")


def test_two_networks_side_by_side(run, trained, quantized):
    trained, quantized = trained / MODEL, quantized / MODEL
    first, second = (
        measure_cost(load_model(path)[0], data.load("digits", "test").first(20)) for path in (trained, quantized)
    )
    found = run("cost", trained, quantized, *IMAGES, "--json")
    assert found.code == 0, found.err
    document = json.loads(found.out)
    row = document["row"]
    assert row == CostComparison(baseline=first, quantized=second).row()
    assert row["synops_p99"] == second.synops.p99
    assert row["synops_p50_fp"] == first.synops.p50
    assert row["weight_kib"] < row["weight_kib_fp"]
    assert row["energy_uj"] < row["energy_uj_fp"]
    assert row["cost_left_out"] is None
    text = run("cost", trained, quantized, *IMAGES).out
    assert f"{second.synops.p99:,.0f}" in text
    assert max(map(len, text.splitlines())) <= 100
    assert f"{second.memory.weight_bits / 8192:,.1f}" in text
    for layer in second.synapses:
        assert layer.name in text


def test_one_network(run, quantized):
    quantized = quantized / MODEL
    expected = measure_cost(load_model(quantized)[0], data.load("digits", "test").first(20))
    found = run("cost", quantized, *IMAGES, "--json")
    assert found.code == 0, found.err
    document = json.loads(found.out)
    assert document["synops"]["p99"] == expected.synops.p99
    assert document["energy_pj"]["real"]["total"] == pytest.approx(expected.energy().total)


def test_the_wrong_order_is_refused(run, trained, quantized):
    found = run("cost", quantized / MODEL, trained / MODEL, *IMAGES)
    assert found.code == 2
    assert "swap the two" in found.err


def test_a_quantized_network_s_row_says_what_was_gained(quantized):
    row = json.loads((quantized / "row.json").read_text())["rows"][0]
    assert 0 < row["weight_kib"] < row["weight_kib_fp"]
    assert 0 < row["energy_uj"] < row["energy_uj_fp"]
    assert row["synops_p50"] <= row["synops_p99"]
    assert row["cost_left_out"] is None
