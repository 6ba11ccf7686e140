"""Cells whose spikes are counted by look-up: which, and that nothing else of them changes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import isofire
from isofire.lookup import FastNetwork
from isofire.spec import QuantSpec
from isofire.study import Splits, run_cell
from isofire.study.quick import LEAST_IMAGES, quickened

WEIGHTS = QuantSpec(weights={"method": "uniform", "bits": 4})
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def many() -> isofire.data.ImageSet:
    return isofire.data.load("digits", "train")


def _cell(baseline: nn.Module, splits: Splits, many: isofire.data.ImageSet, **options: object):
    return run_cell(
        baseline, WEIGHTS, mode="ptq", train_set=splits.train, test_set=many, device="cpu", calibration_images=32,
        **options,  # type: ignore[arg-type]
    )  # fmt: skip


def test_a_row_says_how_it_was_counted_and_counts_what_the_fast_network_does(baseline, splits, many) -> None:
    cell, plain = _cell(baseline, splits, many), _cell(baseline, splits, many, fast=False)
    assert cell.row["forward"] == "look-up"
    assert "forward" not in plain.row
    expected = isofire.compare(baseline, isofire.fast(plain.model), many)
    assert {layer.layer: layer.emd for layer in cell.comparison.layers} == {
        layer.layer: layer.emd for layer in expected.layers
    }
    # the paths may differ by a few spikes in a million, and by nothing else
    assert cell.row.keys() - {"forward"} == plain.row.keys()
    for key, value in plain.row.items():
        if isinstance(value, float) and key != "seconds":
            assert cell.row[key] == pytest.approx(value, abs=1e-4, rel=1e-2, nan_ok=True), key
        elif key != "seconds":
            assert cell.row[key] == value, key


def test_the_network_of_a_cell_stays_one_that_can_be_saved_and_trained(baseline, splits, many) -> None:
    assert not isinstance(_cell(baseline, splits, many).model, FastNetwork)


def test_it_can_be_switched_off(baseline, splits, many, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ISOFIRE_FAST", "0")
    assert "forward" not in _cell(baseline, splits, many).row
    assert _cell(baseline, splits, many, fast=True).row["forward"] == "look-up"


def test_few_images_other_devices_and_weights_without_codes_are_run_as_they_are(baseline, splits, many) -> None:
    quantized = isofire.quantize_(isofire.adapters.copy_of(baseline), WEIGHTS, splits.train.batches(32))
    assert isinstance(quickened(quantized, many, None, CPU), FastNetwork)
    assert quickened(quantized, many, LEAST_IMAGES - 1, CPU) is quantized
    assert quickened(quantized, iter([]), None, CPU) is quantized
    assert quickened(quantized, many, None, torch.device("cuda")) is quantized
    assert quickened(baseline, many, None, CPU) is baseline
