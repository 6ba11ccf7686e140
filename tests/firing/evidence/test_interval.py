"""Intervals: coverage on known distributions, quantiles against scipy, and how many images would be enough."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch

from isofire.errors import DataError, SpecError
from isofire.firing import SpikeCounts, emd
from isofire.firing.evidence import Interval, drift_intervals, images_enough
from isofire.firing.evidence.draws import bootstrap
from isofire.firing.evidence.resample import resample
from isofire.firing.evidence.student import t_value, z_value

_FILE = Path(__file__).with_name("simulation.py")
_MODULE = importlib.util.spec_from_file_location("simulation", _FILE)
assert _MODULE is not None
assert _MODULE.loader is not None
simulation: Any = importlib.util.module_from_spec(_MODULE)
_MODULE.loader.exec_module(simulation)

SIMULATIONS = 200


@pytest.mark.slow
@pytest.mark.parametrize(("images", "common"), [(0.6, True), (0.6, False)])
def test_coverage_where_the_distance_is_resolved(images: float, common: bool) -> None:
    truth = simulation.two_networks()
    hits: dict[str, list[bool]] = {"emd": [], "mfr": [], "mfr_change": []}
    for seed in range(SIMULATIONS):
        pair = simulation.recorded(truth, np.random.default_rng(seed), images=images, common=common)
        found = drift_intervals(*pair, resamples=100, seed=seed, ranks=False)
        for name, (before, after) in truth.items():
            known = {"emd": emd(before, after), "mfr": after.mean(), "mfr_change": after.mean() - before.mean()}
            for key, value in known.items():
                hits[key].append(value in found.layers[name][key])
    coverage = {key: float(np.mean(values)) for key, values in hits.items()}
    assert all(0.93 <= value <= 0.97 for value in coverage.values()), coverage


def test_unchanged_rates_are_not_ruled_out() -> None:
    """Where the truth is 0 the interval must reach 0; it covers more than 95 % there, as the docstring says."""
    rates = simulation.two_networks()["up"][0]
    truth = {"same": (rates, rates), "mirrored": (rates, rates[::-1].copy())}
    zero = {"same": 0, "mirrored": 0}
    for seed in range(60):
        pair = simulation.recorded(truth, np.random.default_rng(seed), common=False)
        found = drift_intervals(*pair, resamples=60, seed=seed, ranks=False)
        for name in truth:
            interval = found.layers[name]["emd"]
            assert interval.estimate > 0
            zero[name] += interval.low == 0
        # mirrored rates have the same distribution, and every neuron another rate
        assert found.layers["mirrored"]["paired_mae"].resolved
    assert min(zero.values()) >= 55, zero


def test_reshuffling_is_covered_where_all_of_the_drift_is_reshuffling() -> None:
    """EMD is noise alone there, so paired drift - EMD lies below the truth."""
    rates = simulation.two_networks()["up"][0]
    mirrored, swapped = rates[::-1].copy(), np.where(np.arange(60) % 2, rates, np.roll(rates, 1))
    truth = {"mirrored": (rates, mirrored), "swapped": (rates, swapped)}
    hits = dict.fromkeys(truth, 0)
    below = 0
    for seed in range(80):
        pair = simulation.recorded(truth, np.random.default_rng(seed), common=False)
        found = drift_intervals(*pair, resamples=60, seed=seed, ranks=False)
        for name, (before, after) in truth.items():
            true = float(np.abs(after - before).mean() - emd(before, after))
            interval = found.layers[name]["reshuffle"]
            hits[name] += true in interval
            below += name == "mirrored" and interval.estimate < true
    assert below > 60
    assert min(hits.values()) >= 0.9 * 80, hits


def test_the_percentile_interval_would_miss_unchanged_rates() -> None:
    """Why intervals are not simply percentiles of resamples."""
    rates, held = simulation.two_networks()["up"][0], 0
    for seed in range(10):
        rng = np.random.default_rng(seed)
        pair = simulation.recorded({"same": (rates, rates)}, rng, common=False)
        drawn = resample(*pair, bootstrap(20, 100, rng), ranks=False).layers["same"]["emd"]
        assert np.quantile(drawn, 0.025) > 0
        held += 0 in drift_intervals(*pair, resamples=60, seed=seed, ranks=False).layers["same"]["emd"]
    assert held >= 8


def test_the_bias_at_few_images_is_seen_and_taken_off() -> None:
    truth = simulation.two_networks()
    measured, corrected = [], []
    for seed in range(80):
        pair = simulation.recorded(truth, np.random.default_rng(seed), blocks=10, per_block=5, common=False)
        interval = drift_intervals(*pair, resamples=100, seed=seed, ranks=False).layers["spread"]["emd"]
        measured.append(interval.estimate)
        corrected.append(interval.corrected)
    true = emd(*truth["spread"])
    assert np.mean(measured) > 1.05 * true
    assert abs(np.mean(corrected) - true) < abs(np.mean(measured) - true)


def test_intervals_are_deterministic_and_complete() -> None:
    pair = simulation.recorded(simulation.two_networks(), np.random.default_rng(0))
    first, second = (drift_intervals(*pair, resamples=60, seed=3) for _ in range(2))
    assert first == second
    assert first != drift_intervals(*pair, resamples=60, seed=4)
    assert (first.n_images, first.blocks, first.resamples) == (200, 20, 60)
    for interval in (*first.overall.values(), *first.layers["up"].values()):
        assert interval.low <= interval.corrected <= interval.high
    assert -1 <= first.overall["spearman"].low <= first.overall["spearman"].high <= 1
    assert 0.7 < first.overall["spearman"].estimate < 1


def test_a_measure_without_a_value_has_an_interval_without_ends() -> None:
    silent = torch.zeros(6, 4, dtype=torch.int32)
    counts = SpikeCounts({"lif": silent}, torch.full((6,), 5), 4)
    found = drift_intervals(counts, counts, resamples=50).layers["lif"]
    assert np.isnan(found["spearman"].low)
    assert images_enough(found["spearman"], 30) is None
    assert (found["emd"].low, found["emd"].high, found["emd"].resolved) == (0, 0, False)


def test_too_few_blocks_are_refused() -> None:
    counts = SpikeCounts({"lif": torch.ones(4, 3, dtype=torch.int32)}, torch.full((4,), 5), 4)
    with pytest.raises(DataError, match=r"at least 5 blocks, got 4 \(20 images\); record more"):
        drift_intervals(counts, counts)
    with pytest.raises(SpecError, match=r"such as 0\.95, got 95"):
        drift_intervals(counts, counts, level=95)


@pytest.mark.parametrize("level", [0.5, 0.9, 0.95, 0.999])
def test_quantiles_against_scipy(level: float) -> None:
    for freedom in (1, 2, 3, 4, 7, 38, 39, 399, 10_001):
        expected = scipy.stats.t.ppf((1 + level) / 2, freedom)
        assert t_value(level, freedom) == pytest.approx(expected, rel=1e-9 if freedom < 10_000 else 5e-4)
    assert z_value(level) == pytest.approx(scipy.stats.norm.ppf((1 + level) / 2), rel=1e-12)


def test_as_many_images_as_were_said_to_be_enough_are() -> None:
    """The forecast from 100 images is tried: the interval that it leads to has about the width that was asked for."""
    truth = simulation.two_networks()
    few = simulation.recorded(truth, np.random.default_rng(1), blocks=20, per_block=5)
    interval = drift_intervals(*few, resamples=100, ranks=False).layers["up"]["emd"]
    needed = images_enough(interval, 100, tolerance=0.1)
    assert needed is not None
    assert needed > 100
    more = simulation.recorded(truth, np.random.default_rng(2), blocks=20, per_block=-(-needed // 20))
    reached = drift_intervals(*more, resamples=100, ranks=False).layers["up"]["emd"]
    assert reached.half_width < 0.2 * reached.corrected
    assert images_enough(reached, more[0].n_images, tolerance=0.2) <= more[0].n_images  # type: ignore[operator]


def test_images_enough() -> None:
    interval = Interval(estimate=0.02, low=0.01, high=0.03, level=0.95, bias=0.0, error=0.005)
    assert images_enough(interval, 100, tolerance=0.5) == 100
    assert images_enough(interval, 100, tolerance=0.05) == 10_000
    assert images_enough(interval, 100, absolute=0.001) == 10_000
    unresolved = Interval(estimate=0.02, low=0, high=0.03, level=0.95, bias=0.0, error=0.01, resolved=False)
    assert images_enough(unresolved, 100) is None
    assert images_enough(unresolved, 100, absolute=0.0075) == 400
    with pytest.raises(SpecError, match="absolute must be above 0"):
        images_enough(interval, 100, absolute=0.0)
