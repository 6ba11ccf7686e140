"""Layer drift and its aggregates, by hand and against scipy."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from isofire.errors import DataError, ModelError, SpecError
from isofire.firing import SpikeCounts, emd_pooled, layer_drift, layer_mean, neuron_weighted, overall_drift

Make = Callable[..., SpikeCounts]
Layers = dict[str, list[int]]


def recording(layers: Layers) -> SpikeCounts:
    """One block of 5 images, T = 4: rates are counts out of 20."""
    return SpikeCounts({name: torch.tensor([row]).int() for name, row in layers.items()}, torch.tensor([5]), 4)


def test_a_layer_by_hand() -> None:
    # rates 0, 0.05, 0.5, 1 against 0.05, 0, 0.5, 0.8
    drift = layer_drift(recording({"x": [0, 1, 10, 20]}), recording({"x": [1, 0, 10, 16]}), "x")
    assert (drift.layer, drift.neurons) == ("x", 4)
    assert (drift.mfr_fp, drift.mfr) == (31 / 80, 27 / 80)
    assert (drift.dead_00_fp, drift.dead_00) == (0.25, 0.25)
    assert (drift.dead_05_fp, drift.dead_05) == (0.25, 0.25)
    assert (drift.dead_01_fp, drift.dead_01) == (0.25, 0.25)
    assert drift.paired_mae == pytest.approx(6 / 80)
    assert drift.emd == pytest.approx(4 / 80)
    assert (drift.shift, drift.shape) == pytest.approx((4 / 80, 0))
    assert drift.reshuffle == pytest.approx(2 / 80)
    assert drift.spearman == pytest.approx(0.8)
    assert drift.transitions == (2, 1, 1, 0)


def test_the_dead_cuts_differ() -> None:
    # one image in 40,000 steps: rates 0, 0.0025, 0.01, 0.049
    counts = SpikeCounts({"x": torch.tensor([[0, 100, 400, 1960]]).int()}, torch.tensor([10_000]), 4)
    busy = SpikeCounts({"x": torch.tensor([[100, 400, 400, 40_000]]).int()}, torch.tensor([10_000]), 4)
    drift = layer_drift(counts, busy, "x")
    assert (drift.dead_00_fp, drift.dead_01_fp, drift.dead_05_fp) == (0.25, 0.5, 1.0)
    assert (drift.dead_00, drift.dead_01, drift.dead_05) == (0.0, 0.25, 0.75)


NUMBERS = st.lists(st.integers(0, 20), min_size=6, max_size=6)


@settings(deadline=None, max_examples=80)
@given(first=NUMBERS, second=NUMBERS)
def test_identities_hold_overall(first: list[int], second: list[int]) -> None:
    before = recording({"x": first[:2], "y": first[2:]})
    after = recording({"x": second[:2], "y": second[2:]})
    layers = [layer_drift(before, after, name) for name in before.layers]
    overall = overall_drift(layers, before, after)
    parts = overall["shift"], overall["shape"], overall["reshuffle"]
    assert min(parts) >= 0
    assert sum(parts) == pytest.approx(overall["paired_mae"], abs=1e-14)
    assert overall["shift"] + overall["shape"] == pytest.approx(overall["emd_weighted"], abs=1e-14)
    assert overall["emd_pooled"] <= overall["emd_weighted"] + 1e-14
    assert overall["emd_weighted"] <= overall["emd_max"] + 1e-14
    reference = stats.wasserstein_distance([n / 20 for n in first], [n / 20 for n in second])
    assert overall["emd_pooled"] == pytest.approx(reference, abs=1e-13)


def test_opposite_drifts_cancel_only_in_the_pooled_emd() -> None:
    before, after = recording({"x": [4], "y": [8, 8]}), recording({"x": [8], "y": [8, 4]})
    overall = overall_drift([layer_drift(before, after, name) for name in ("x", "y")], before, after)
    assert overall["emd_pooled"] == 0
    assert overall["emd_layer_mean"] == pytest.approx((0.2 + 0.1) / 2)
    assert overall["emd_weighted"] == pytest.approx((0.2 + 2 * 0.1) / 3)
    assert overall["emd_max"] == pytest.approx(0.2)
    assert overall["mfr"] == overall["mfr_fp"] == pytest.approx(1 / 3)


def test_layers_without_an_order_are_left_out_of_spearman() -> None:
    before, after = recording({"x": [0, 0, 0], "y": [1, 2]}), recording({"x": [1, 2, 3], "y": [2, 1]})
    layers = [layer_drift(before, after, name) for name in ("x", "y")]
    assert math.isnan(layers[0].spearman)
    assert overall_drift(layers, before, after)["spearman"] == pytest.approx(-1)
    silent = recording({"x": [0, 0]})
    only = [layer_drift(silent, silent, "x")]
    assert math.isnan(overall_drift(only, silent, silent)["spearman"])


def test_recordings_that_do_not_match_are_refused(counts: Make) -> None:
    record = counts()
    others = {
        "only in the first": counts(counts={"b": record.counts["b"]}),
        "T = 4 against 8": counts(steps=8),
        "5 against 6 images": counts(images_per_block=torch.tensor([3, 3])),
    }
    for match, other in others.items():
        with pytest.raises(ModelError, match=match):
            emd_pooled(record, other)
        with pytest.raises(ModelError, match=match):
            layer_drift(record, other, "b")
    with pytest.raises(SpecError, match="got 'c'"):
        layer_drift(record, record, "c")


def test_means_refuse_what_does_not_go_together() -> None:
    assert layer_mean([0.1, 0.3]) == pytest.approx(0.2)
    with pytest.raises(DataError, match="at least one layer"):
        layer_mean([])
    with pytest.raises(DataError, match="layer by layer"):
        neuron_weighted([0.1, 0.2], [1])
    with pytest.raises(DataError, match="layer by layer"):
        neuron_weighted([0.1], [0])
