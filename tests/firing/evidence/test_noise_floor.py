"""Noise floors against simulated repetitions and brute force; what a comparison says of its noise."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
import torch

from isofire.errors import DataError, SpecError
from isofire.firing import Comparison, SpikeCounts, emd
from isofire.firing.evidence import Interval, over_seeds, summary
from isofire.firing.evidence.noise_floor import FloorValue, control_floor, image_floor, over_runs, seed_floor
from isofire.firing.evidence.ratio import Magnitude
from isofire.firing.evidence.summary import DriftVsFloor, evidence

RATES = 0.6 * np.random.default_rng(7).beta(0.5, 5, 300)


def recording(rates: np.ndarray = RATES, seed: int = 0, blocks: int = 20, per_block: int = 10) -> SpikeCounts:
    """Two layers of Bernoulli neurons, the second with half the rates; T = 4."""
    rng = np.random.default_rng(seed)
    layers = {
        name: torch.from_numpy(rng.binomial(4 * per_block, scale * rates, (blocks, rates.size)).astype(np.int32))
        for name, scale in (("first", 1.0), ("second", 0.5))
    }
    return SpikeCounts(layers, torch.full((blocks,), per_block), 4)


def compared(before: SpikeCounts, after: SpikeCounts, **changes: object) -> Comparison:
    return Comparison.of(before, after, accuracy=1, accuracy_fp=1, agreement=1, **changes)  # type: ignore[arg-type]


def test_a_baseline_has_its_floor_computed_once_and_anew_when_it_is_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    baseline, others = recording(), [recording(seed=seed) for seed in (1, 2)]
    made = []
    monkeypatch.setattr(summary, "image_floor", lambda *a, **b: made.append(1) or image_floor(*a, **b))
    found = [evidence(baseline, other, resamples=50).floor for other in others]
    assert len(made) == 1
    assert found[0] == found[1] == image_floor(baseline, images=1000)
    baseline.counts["first"].mul_(2)
    assert evidence(baseline, others[0], resamples=50).floor == image_floor(baseline, images=1000) != found[0]


@pytest.mark.parametrize(("method", "share"), [("bootstrap", 1), ("halves", 2)])
def test_the_image_floor_is_what_repetitions_show(method: str, share: int) -> None:
    """Independent recordings of the same neurons, of as many images as the method says, differ by the floor."""
    floor = image_floor(recording(blocks=40), method=method)  # type: ignore[arg-type]
    repetitions = [
        compared(recording(seed=100 + 2 * i, blocks=40 // share), recording(seed=101 + 2 * i, blocks=40 // share))
        for i in range(30)
    ]
    for key in ("emd_layer_mean", "emd_pooled", "paired_mae"):
        expected = np.mean([found.overall[key] for found in repetitions])
        assert floor.overall[key].value == pytest.approx(expected, rel=0.15), key
        assert floor.overall[key].low <= floor.overall[key].value <= floor.overall[key].high
    assert floor.layers["first"]["emd"].value > floor.layers["second"]["emd"].value
    assert floor.kind == "images"
    assert f"{400 // share} against {400 // share}" in floor.about


def test_the_image_floor_falls_with_the_number_of_images() -> None:
    few, many = (image_floor(recording(per_block=n)).overall["paired_mae"].value for n in (5, 80))
    assert many == pytest.approx(few / 4, rel=0.15)


def test_halves_of_an_odd_number_of_blocks_are_equally_large() -> None:
    floor = image_floor(recording(blocks=7), method="halves")
    assert 0 < floor.overall["emd_layer_mean"].value < 0.02


def test_the_seed_floor_is_the_mean_over_all_pairs() -> None:
    rng = np.random.default_rng(3)
    networks = [recording(np.clip(RATES * rng.uniform(0.7, 1.3), 0, 0.6), seed) for seed in range(4)]
    floor = seed_floor(networks)
    pairs = {
        (i, j): float(np.mean([emd(networks[i].rates(n), networks[j].rates(n)) for n in ("first", "second")]))
        for i, j in itertools.combinations(range(4), 2)
    }
    found = floor.overall["emd_layer_mean"]
    assert found.value == pytest.approx(np.mean(list(pairs.values())))
    left_out = [np.mean([value for pair, value in pairs.items() if seed not in pair]) for seed in range(4)]
    # where one more pair would lie
    error = math.sqrt(3 / 4 * np.sum((left_out - np.mean(left_out)) ** 2))
    half = scipy.stats.t.ppf(0.975, 3) * math.hypot(error, np.std(list(pairs.values()), ddof=1))
    assert found.high == pytest.approx(found.value + half)
    assert "6 pairs" in floor.about
    # neurons of different seeds are not the same neurons
    assert floor.get("paired_mae") is None
    assert floor.get("emd", "nowhere") is None
    assert math.isnan(seed_floor(networks[:2]).overall["emd_max"].low)
    with pytest.raises(DataError, match="at least 2 seeds, got 1"):
        seed_floor(networks[:1])


def test_the_control_floor_is_the_drift_of_the_control() -> None:
    before, control = recording(), recording(0.9 * RATES, seed=1)
    floor = control_floor(before, control, about="three epochs more")
    expected = compared(before, control)
    assert floor.overall["emd_layer_mean"].value == expected.overall["emd_layer_mean"]
    assert floor.layers["second"]["paired_mae"].value == expected.layers[1].paired_mae
    assert floor.overall["mfr_change"].value == pytest.approx(abs(expected.overall["mfr"] - expected.overall["mfr_fp"]))
    assert (floor.kind, floor.about) == ("control", "three epochs more")


def test_several_controls_give_their_mean_and_the_spread_between_runs() -> None:
    before = recording()
    runs = [recording(scale * RATES, seed=seed) for seed, scale in enumerate((0.9, 0.85, 0.8), 1)]
    each = [control_floor(before, run).overall["emd_layer_mean"] for run in runs]
    floor = control_floor(before, runs, about="continued")
    assert floor.about == "continued, 3 runs"
    value = floor.overall["emd_layer_mean"]
    drift = np.array([item.value for item in each])
    assert value.value == pytest.approx(drift.mean())
    images = np.mean([item.high - item.value for item in each])
    # where a fourth run would lie
    half = scipy.stats.t.ppf(0.975, 2) * drift.std(ddof=1) * (1 + 1 / 3) ** 0.5
    assert half > images
    assert value.high - value.value == pytest.approx(half)
    assert value.noise == pytest.approx(np.mean([item.noise for item in each]))
    # runs that hardly differ are no better known than the images allow
    alike = over_runs([Magnitude(1.0, 0.8, 1.3), Magnitude(1.001, 0.8, 1.3)])
    assert (alike.low, alike.high) == (pytest.approx(0.8), pytest.approx(1.3))
    assert control_floor(before, runs[:1]).overall == control_floor(before, runs[0]).overall
    with pytest.raises(DataError, match="at least 1 control"):
        control_floor(before, [])


@pytest.mark.parametrize("runs", [2, 3, 10])
def test_one_more_run_of_the_control_is_seldom_called_more_than_noise(runs: int) -> None:
    """A quantized network that does what the controls do: nominally one in forty lies above them."""
    rng, above, draws = np.random.default_rng(runs), 0, 4000
    for drifts in rng.normal(0.004, 0.0004, (draws, runs + 1)):
        made = [Magnitude(value, value - 1e-5, value + 1e-5) for value in drifts]
        one = Interval(estimate=drifts[0], low=made[0].low, high=made[0].high, level=0.95, error=0.0)
        above += not DriftVsFloor(interval=one, floor=over_runs(made[1:])).within_noise
    assert 0.015 <= above / draws <= 0.035


def test_a_drift_of_the_size_of_the_floor_is_noise() -> None:
    """Two recordings of the same rates are within the image floor; a third fewer spikes are not."""
    before = recording()
    same, fewer = compared(before, recording(seed=5)), compared(before, recording(0.7 * RATES, seed=5))
    assert same.evidence is not None
    assert fewer.evidence is not None
    assert same.evidence.against().within_noise is True
    # a floor of 1,000 images is smaller than what 200 show, by the root of 5; the noise is off the lower end
    assert same.evidence.against().ratio == pytest.approx(5**0.5, abs=0.7)
    assert same.evidence.against().multiple.low < 1
    assert fewer.evidence.against().within_noise is False
    assert fewer.evidence.against().ratio > 5
    against = compared(before, recording(0.7 * RATES, seed=5), floor=control_floor(before, fewer.quantized))
    assert against.evidence is not None
    assert against.evidence.against().ratio == 1
    assert against.evidence.against("emd", "first").within_noise is True


@pytest.mark.parametrize(
    ("ends", "floor", "expected"),
    [
        ((0.1, 0.2), 0.05, False),
        ((0.1, 0.2), 0.15, True),
        ((0.1, 0.2), 0.3, True),
        ((-0.2, -0.1), 0.05, False),
        ((-0.2, 0.1), 0.0, True),
        ((math.nan, math.nan), 0.1, None),
    ],
)
def test_verdicts(ends: tuple[float, float], floor: float, expected: bool | None) -> None:
    interval = Interval(estimate=sum(ends) / 2, low=ends[0], high=ends[1], level=0.95, error=0.0)
    exact = FloorValue(value=floor, low=floor, high=floor)
    assert DriftVsFloor(interval=interval, floor=exact).within_noise is expected
    assert DriftVsFloor(interval=interval, floor=FloorValue(value=floor)).within_noise is None
    assert DriftVsFloor(interval=interval, floor=None).within_noise is None


def test_an_uncertain_floor_hides_a_drift_that_an_exact_one_would_not() -> None:
    interval = Interval(estimate=0.12, low=0.11, high=0.13, level=0.95, error=0.005)
    sharp, blurred = (FloorValue(value=0.1, low=0.1 - half, high=0.1 + half) for half in (0.001, 0.03))
    assert DriftVsFloor(interval=interval, floor=sharp).within_noise is False
    assert DriftVsFloor(interval=interval, floor=blurred).within_noise is True


def test_a_floor_of_one_pair_of_seeds_is_told_to_say_nothing() -> None:
    before = recording()
    floor = seed_floor([before, recording(seed=5)])
    found = compared(before, recording(0.7 * RATES, seed=6), floor=floor)
    assert found.row()["keeps_firing"] == "undecided"
    assert "its interval is not known" in found.table()


def test_table_json_and_row_show_the_noise(tmp_path: Path) -> None:
    before, after = recording(), recording(0.7 * RATES, seed=5)
    found = compared(before, after)
    assert found.evidence is not None
    against = found.evidence.against()
    text = found.table()
    assert max(map(len, text.splitlines())) <= 100
    for piece in (
        f"{against.interval.low:.5f} .. {against.interval.high:.5f}",
        "floor: the baseline on other images",
        "with unchanged rates the EMD of 200 images would be",
        "with unlimited images it would be between",
    ):
        assert piece in text
    assert "✗ firing fails" in text
    same = compared(before, recording(seed=5)).table()
    assert "✗ firing" not in same
    assert "so all of it may be noise" in same
    stored = json.loads((found.to_json(tmp_path / "c.json"), (tmp_path / "c.json").read_text())[1])["evidence"]
    assert stored["overall"]["emd_weighted"]["low"] == against.interval.low
    row = found.row()
    assert (row["emd_weighted_low"], row["emd_weighted_high"], row["floor"]) == (
        against.interval.low,
        against.interval.high,
        "images",
    )
    assert row["drift_over_floor"] == row["emd_weighted"] / row["emd_weighted_floor"]
    assert row["keeps_firing"] == "fails"
    ends = stored["overall"]["emd_weighted"]["ratio_low"], stored["overall"]["emd_weighted"]["ratio_high"]
    assert ends == (row["drift_over_floor_low"], row["drift_over_floor_high"])
    assert 2 < ends[0] < row["drift_over_floor"] < ends[1]


def test_few_images_are_told_how_many_would_be_enough() -> None:
    def enough(per_block: int) -> str:
        before, after = (recording(rates, seed, 8, per_block) for seed, rates in enumerate((RATES, 0.8 * RATES)))
        return compared(before, after).table().splitlines()[-1]

    assert "images would be enough for an interval of +-10 %" in enough(5)
    assert enough(2000) == "16,000 images are enough for an interval of +-10 %"


def test_seeds_are_combined_by_student() -> None:
    values = [0.010, 0.013, 0.0115, 0.016]
    found = over_seeds(values)
    expected = scipy.stats.t.interval(0.95, 3, np.mean(values), scipy.stats.sem(values))
    assert (found.low, found.high) == pytest.approx(expected)
    with pytest.raises(DataError, match="at least 2 finite values"):
        over_seeds([0.1])


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(SpecError, match="method must be one of bootstrap, halves"):
        image_floor(recording(), method="thirds")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="at least 5 blocks"):
        image_floor(recording(blocks=4))
