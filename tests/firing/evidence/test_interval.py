"""Intervals: coverage on known distributions, quantiles against scipy, and how many images would be enough."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.optimize
import scipy.stats
import torch

from isofire.errors import DataError, SpecError
from isofire.firing import SpikeCounts, emd
from isofire.firing.evidence import Interval, drift_intervals, images_enough
from isofire.firing.evidence.interval import skewed
from isofire.firing.evidence.student import t_value, z_value
from isofire.firing.measures import MEASURES

_FILE = Path(__file__).with_name("simulation.py")
_MODULE = importlib.util.spec_from_file_location("simulation", _FILE)
assert _MODULE is not None
assert _MODULE.loader is not None
simulation: Any = importlib.util.module_from_spec(_MODULE)
_MODULE.loader.exec_module(simulation)

SIMULATIONS = 100
LEAST = 0.93 - 3 * (0.95 * 0.05 / SIMULATIONS) ** 0.5
"""Three Monte-Carlo errors below what is promised; the study itself (scripts/coverage) has more simulations."""
RATES = simulation.two_networks()["up"][0]
HALF = np.arange(60) % 2 == 0


def _layers(before: Any, after: Any, still: int = 0) -> dict[str, Any]:
    return {"drifts": (before, after)} | {f"still{i}": (RATES, RATES) for i in range(still)}


SCENARIOS = {
    "one layer of three": (_layers(RATES, np.clip(1.3 * RATES, 0, 0.6), still=2), 0.02),
    "one rate parts into two": (_layers(np.full(60, 0.3), np.where(HALF, 0.28, 0.32)), 0.02),
    "two rates become one": (_layers(np.where(HALF, 0.28, 0.32), np.full(60, 0.3)), 0.02),
    "pushed apart": (_layers(RATES + 0.03, RATES + 0.03 + 0.02 * np.sign(RATES - np.median(RATES))), 0.02),
    "permuted": (_layers(RATES, RATES[::-1].copy()), 0.0),
    "unchanged": (_layers(RATES, RATES), 0.0),
}
"""True rates, and the EMD of the layer that drifts, by hand."""


def _measured(truth: dict[str, Any], draws: int = 4000, total: int = 100) -> float:
    """Mean over recordings of as many images of the layers' mean EMD: sorted rates, no product code but the images."""
    rng = np.random.default_rng(99)
    # an image raises or lowers all rates by up to 60 %: the mean of 100 such factors is normal
    factor = rng.normal(1, 0.6 / np.sqrt(3 * total), (draws, 1))
    emds = []
    for before, after in truth.values():
        sides = [
            np.sort(rng.binomial(4 * total, np.clip(factor * rates, 0, 1)) / (4 * total)) for rates in (before, after)
        ]
        emds.append(np.abs(sides[0] - sides[1]).mean(1))
    return float(np.mean(emds))


@pytest.mark.parametrize("name", list(SCENARIOS))
def test_the_emd_of_as_many_images_and_that_of_true_rates_are_covered(name: str) -> None:
    truth, of_layer = SCENARIOS[name]
    measured, true, hits, within = _measured(truth), of_layer / len(truth), 0, 0
    if name == "one layer of three":
        true = emd(*truth["drifts"]) / 3
    assert name != "permuted" or emd(*truth["drifts"]) == 0
    for seed in range(SIMULATIONS):
        pair = simulation.recorded(truth, np.random.default_rng(seed), blocks=20, per_block=5, common=False)
        found = drift_intervals(*pair, resamples=50, seed=seed, ranks=False).overall["emd_layer_mean"]
        hits += measured in found
        within += found.true_low <= true <= found.true_high
    assert hits / SIMULATIONS >= LEAST
    assert within / SIMULATIONS >= LEAST


@pytest.mark.slow
@pytest.mark.parametrize(("images", "common"), [(0.6, True), (0.6, False)])
def test_means_are_covered_as_often_as_promised(images: float, common: bool) -> None:
    truth = simulation.two_networks()
    hits: dict[str, list[bool]] = {"mfr": [], "mfr_change": []}
    for seed in range(200):
        pair = simulation.recorded(truth, np.random.default_rng(seed), images=images, common=common)
        found = drift_intervals(*pair, resamples=100, seed=seed, ranks=False)
        for name, (before, after) in truth.items():
            known = {"mfr": after.mean(), "mfr_change": after.mean() - before.mean()}
            for key, value in known.items():
                interval = found.layers[name][key]
                hits[key].append(value in interval)
                assert (interval.true_low, interval.true_high) == (interval.low, interval.high)
    coverage = {key: float(np.mean(values)) for key, values in hits.items()}
    # arms are never shorter than t, so they are rather too long where blocks happen to be skewed
    assert all(0.93 <= value <= 0.985 for value in coverage.values()), coverage


def test_unchanged_rates_are_ruled_out_at_most_as_often_as_said() -> None:
    """One in forty, and the mean of what unchanged rates show is known."""
    truth = {"same": (RATES, RATES), "swapped": (RATES, np.where(HALF, RATES, np.roll(RATES, 2)))}
    ruled_out = dict.fromkeys(truth, 0)
    noise, shown = [], []
    for seed in range(100):
        pair = simulation.recorded(truth, np.random.default_rng(seed), common=False)
        found = drift_intervals(*pair, resamples=50, seed=seed, ranks=False).layers
        for name in truth:
            interval = found[name]["paired_mae"]
            ruled_out[name] += interval.resolved
            assert interval.resolved == (interval.true_low > 0)
        noise.append(found["same"]["paired_mae"].noise)
        shown.append(found["same"]["paired_mae"].estimate)
    assert ruled_out["same"] <= 8
    # swapped rates have the same distribution, and many neurons another rate
    assert ruled_out["swapped"] == 100
    assert np.mean(noise) == pytest.approx(np.mean(shown), rel=0.05)


def test_a_small_case_by_hand() -> None:
    """Five blocks of one image and one step, two neurons: rates, jackknife and arms written out."""
    before = SpikeCounts({"lif": torch.tensor([[0, 1]] * 5, dtype=torch.int32)}, torch.ones(5, dtype=torch.int64), 1)
    after = SpikeCounts(
        {"lif": torch.tensor([[0, 1], [0, 1], [1, 1], [0, 1], [1, 1]], dtype=torch.int32)},
        torch.ones(5, dtype=torch.int64),
        1,
    )
    found = drift_intervals(before, after, resamples=2000, ranks=False).layers["lif"]
    # rates 0 and 1 against .4 and 1: EMD, shift and paired drift are .2; without a block .4 becomes .5 (3 times) or .25
    left_out = np.array([0.5, 0.5, 0.25, 0.5, 0.25]) / 2
    error = np.sqrt(4 / 5 * ((left_out - left_out.mean()) ** 2).sum())
    skewness = ((left_out.mean() - left_out) ** 3).mean() / left_out.std() ** 3 / np.sqrt(5)
    t = scipy.stats.t.ppf(0.975, 4)
    for key in ("emd", "shift", "paired_mae", "mfr_change"):
        interval = found[key]
        assert interval.estimate == pytest.approx(0.2)
        # a mean: the bootstrap's error is that of the jackknife, but for the draws
        assert interval.error == pytest.approx(error, rel=0.05)
        assert interval.error >= error * (1 - 1e-12)
    above = _root(lambda x: x + skewness * x**2 / 3 + skewness**2 * x**3 / 27 + skewness / 6 + t)
    assert skewness > 0
    assert found["emd"].low == pytest.approx(max(0.2 - t * found["emd"].error, 0))
    assert found["emd"].high == pytest.approx(0.2 + max(-above, t) * found["emd"].error)
    # the baseline's first neuron is dead in every draw; a share is one neuron wider on either side
    assert (found["dead_00_fp"].estimate, found["dead_00_fp"].low, found["dead_00_fp"].high) == (0.5, 0, 1)
    # EMD is all shift in every draw; shape moves in steps of two spikes of 5 images and 2 neurons
    assert (found["shape"].estimate, found["shape"].low) == (pytest.approx(0, abs=1e-15), 0)
    assert found["shape"].high == pytest.approx(2 / 10)
    # centred, the first neuron has +-.4 and .6: a mean over five draws of it is noise
    assert found["emd"].resolved is False
    assert found["emd"].true_low == 0
    assert found["emd"].true_high == pytest.approx(found["paired_mae"].high)


def _root(function: Any) -> float:
    return float(scipy.optimize.brentq(function, -50, 0))


def test_blocks_without_skewness_have_arms_of_t_and_others_a_longer_one() -> None:
    # one block holds much: left out, the measure is low; above lies more than below
    rows = np.array([[1.0, 2.0, 3.0, 4.0, 5.0], [0.3] * 5, [1.0, 1.0, 1.0, 1.0, 0.0], [0.0, 0.0, 0.0, 0.0, 1.0]])
    below, above = skewed(rows, 2.0)
    assert below[:3] == pytest.approx([2.0, 2.0, 2.0], abs=1e-5)
    assert above[:2] == pytest.approx([2.0, 2.0], abs=1e-5)
    # skewness 1.5: with a = 1.5 / root 5 and x = -above, x + a x^2 / 3 + a^2 x^3 / 27 + a / 6 = -2
    a = 1.5 / 5**0.5
    root = _root(lambda x: x + a * x**2 / 3 + a**2 * x**3 / 27 + a / 6 + 2)
    assert above[2] == pytest.approx(-root)
    assert (below[3], above[3]) == (pytest.approx(above[2]), 2.0)


def test_what_may_be_noise_breaks_no_limit() -> None:
    interval = Interval(estimate=0.02, low=0.01, high=0.03, level=0.95, error=0.005, noise=0.004)
    distance = interval.apart_from_noise(MEASURES["emd"])
    assert (distance.low, distance.high) == (pytest.approx(0.006), interval.high)
    likeness = interval.apart_from_noise(MEASURES["spearman"])
    assert (likeness.low, likeness.high) == (interval.low, pytest.approx(0.034))
    assert interval.apart_from_noise(MEASURES["mfr"]) == interval


def test_true_rates_are_bounded_layer_by_layer_and_over_all() -> None:
    """Every EMD's range is of the norms below and above it, combined as it is."""
    truth = simulation.two_networks()
    pair = simulation.recorded(truth, np.random.default_rng(0))
    found = drift_intervals(*pair, resamples=60, ranks=False)
    layers = {name: values["emd"] for name, values in found.layers.items()}
    for name, (before, after) in truth.items():
        assert layers[name].true_low <= emd(before, after) <= layers[name].true_high
        assert layers[name].true_high == found.layers[name]["paired_mae"].high
    overall = found.overall
    assert overall["emd_weighted"].true_high == overall["paired_mae"].high
    assert overall["emd_max"].true_high == pytest.approx(max(item.true_high for item in layers.values()), rel=0.05)
    assert 0 < overall["emd_layer_mean"].true_low < overall["emd_layer_mean"].true_high
    assert overall["emd_pooled"].true_low == 0
    assert np.isnan(overall["dead_05"].true_low)


def test_intervals_are_deterministic_and_complete() -> None:
    pair = simulation.recorded(simulation.two_networks(), np.random.default_rng(0))
    first, second = (drift_intervals(*pair, resamples=60, seed=3) for _ in range(2))
    assert str(first) == str(second)
    assert str(first) != str(drift_intervals(*pair, resamples=60, seed=4))
    assert (first.n_images, first.blocks, first.resamples) == (200, 20, 60)
    for interval in (*first.overall.values(), *first.layers["up"].values()):
        assert interval.low <= interval.estimate <= interval.high
    assert -1 <= first.overall["spearman"].low <= first.overall["spearman"].high <= 1
    assert 0.7 < first.overall["spearman"].estimate < 1


def test_a_measure_without_a_value_has_an_interval_without_ends() -> None:
    silent = torch.zeros(6, 4, dtype=torch.int32)
    counts = SpikeCounts({"lif": silent}, torch.full((6,), 5), 4)
    found = drift_intervals(counts, counts, resamples=50).layers["lif"]
    assert np.isnan(found["spearman"].low)
    assert images_enough(found["spearman"], 30) is None
    assert (found["emd"].low, found["emd"].high, found["emd"].resolved) == (0, 0, False)
    assert (found["emd"].noise, found["emd"].true_low, found["emd"].true_high) == (0, 0, 0)


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
    assert reached.half_width < 0.2 * reached.estimate
    assert images_enough(reached, more[0].n_images, tolerance=0.2) <= more[0].n_images  # type: ignore[operator]


def test_images_enough() -> None:
    interval = Interval(estimate=0.02, low=0.01, high=0.03, level=0.95, error=0.005)
    assert images_enough(interval, 100, tolerance=0.5) == 100
    assert images_enough(interval, 100, tolerance=0.05) == 10_000
    assert images_enough(interval, 100, absolute=0.001) == 10_000
    unresolved = Interval(estimate=0.02, low=0, high=0.03, level=0.95, error=0.01, resolved=False)
    assert images_enough(unresolved, 100) is None
    assert images_enough(unresolved, 100, absolute=0.0075) == 400
    with pytest.raises(SpecError, match="absolute must be above 0"):
        images_enough(interval, 100, absolute=0.0)
