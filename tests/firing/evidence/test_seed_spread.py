"""Seeds of a setting: what a few of them leave open, with what images leave open."""

from __future__ import annotations

import math

import pytest
from scipy import stats
from scripts.coverage.seeds import SCENARIOS, coverage, longer

from isofire.firing.evidence.interval import Interval
from isofire.firing.evidence.kept import Spreads, kept
from isofire.firing.evidence.noise_floor import FloorValue
from isofire.firing.evidence.seed_spread import SeedSpread, over_images, over_seeds_and_images, seed_spread


def run(value: float, half: float = 1.0) -> Interval:
    return Interval(estimate=value, low=value - half, high=value + half, level=0.95, error=half / 2, noise=0.1)


def test_the_spread_is_that_within_groups_of_anova():
    values = [[4.0, 6.0, 5.0], [1.0, 1.5, 0.2], [7.0, 7.1, 9.0], [0.3, 0.1, 0.9]]
    found = seed_spread([[run(v) for v in group] for group in values])
    within = sum(stats.tvar(group) * (len(group) - 1) for group in values) / 8
    assert found is not None
    assert (found.ratio**2, found.freedom) == (pytest.approx(within), 8)
    # settings of other sizes count in units of their own intervals
    scaled = seed_spread([[run(10**i * v, 10**i) for v in group] for i, group in enumerate(values)])
    assert scaled is not None
    assert scaled.ratio == pytest.approx(found.ratio)


def test_one_seed_is_its_own_interval_and_nothing_is_pooled():
    assert over_seeds_and_images([run(3.0)], SeedSpread(ratio=5.0, freedom=9)) == run(3.0)
    assert seed_spread([[run(1.0)], [run(9.0)]]) is None


def test_two_seeds_borrow_and_never_lend_downwards():
    quiet, loud = [run(1.0), run(1.0001)], [run(1.0), run(2.0)]
    common = SeedSpread(ratio=0.3, freedom=12)
    t = stats.t.ppf(0.975, 12)
    got = over_seeds_and_images(quiet, common)
    assert got.high - got.estimate == pytest.approx(math.hypot(t * 0.3 / math.sqrt(2), 1.0))
    got = over_seeds_and_images(loud, common)
    assert got.high - got.estimate == pytest.approx(math.hypot(t * math.sqrt(0.5) / math.sqrt(2), 1.0))
    assert got.noise == pytest.approx(0.1)


def test_a_setting_unlike_the_others_is_not_pooled_and_takes_its_own_students_t():
    settings = [[run(0.1 * i), run(0.1 * i + 0.2 + 0.01 * i)] for i in range(9)]
    diverged = [run(0.0), run(40.0)]
    common = seed_spread([*settings, diverged])
    assert common is not None
    assert common.freedom == 9
    assert common.ratio == pytest.approx(seed_spread(settings).ratio)
    got = over_seeds_and_images(diverged, common)
    t = stats.t.ppf(0.975, 1) * stats.tstd([0.0, 40.0]) / math.sqrt(2)
    assert got.high - got.estimate == pytest.approx(math.hypot(t, 1.0))


def test_where_images_give_no_interval_students_t_stands_alone():
    runs = [Interval(estimate=v, low=math.nan, high=math.nan, level=0.95, error=math.nan) for v in (1.0, 2.0, 4.0)]
    got = over_seeds_and_images(runs, SeedSpread(ratio=9.0, freedom=5))
    low, high = stats.t.interval(0.95, 2, loc=7 / 3, scale=stats.sem([1.0, 2.0, 4.0]))
    assert (got.low, got.high) == (pytest.approx(low), pytest.approx(high))
    assert math.isnan(over_images(runs).low)


ROW = {"accuracy": 0.974, "accuracy_fp": 0.974, "n_images": 500, "images_lost": 2, "images_won": 2, "agreement": 0.99,
       "emd_weighted": 0.000645, "emd_weighted_low": 0.00044, "emd_weighted_high": 0.00086, "emd_weighted_noise": 0.0,
       "emd_layer_mean": 0.001}  # fmt: skip
FLOOR = FloorValue(value=0.002, low=0.0015, high=0.0025, error=0.0002)


def seeds(*changes):
    return [ROW | change for change in changes]


OTHERS = [
    seeds({"emd_weighted": 0.0011}, {"emd_weighted": 0.0012, "images_lost": 3, "accuracy": 0.972}),
    seeds({"emd_weighted": 0.0020}, {"emd_weighted": 0.0021, "images_won": 3, "accuracy": 0.976}),
    seeds({"emd_weighted": 0.0030}, {"emd_weighted": 0.0032}),
]
TWO = seeds({}, {"emd_weighted": 0.000646, "accuracy": 0.976, "images_lost": 1})


def test_two_seeds_that_both_keep_are_not_undecided_together():
    alone = [kept([row], [FLOOR]).outcome for row in TWO]
    spreads = Spreads.of([TWO, *OTHERS], "emd_weighted")
    together = kept(TWO, [FLOOR, FLOOR], spreads=spreads)
    assert (alone, together.outcome, together.open_by) == (["keeps", "keeps"], "keeps", None)


def test_by_themselves_two_seeds_cannot_tell_and_that_is_what_is_said():
    found = kept(TWO, [FLOOR, FLOOR])
    assert (found.outcome, found.open_by) == ("undecided", "seeds")
    few = [row | {"n_images": 100} for row in TWO]
    assert kept(few, [FLOOR, FLOOR]).open_by == "images"
    assert kept(TWO, [FLOOR, None]).open_by == "floor"
    assert kept(few[:1], [FLOOR]).open_by == "images"


def test_what_no_seed_changes_is_judged_as_one_run_and_is_no_part_of_the_pool():
    same = seeds({}, {"seed": 1}, {"seed": 2})
    assert kept(same, [FLOOR] * 3) == kept(same[:1], [FLOOR])
    assert Spreads.of([same, *OTHERS], "emd_weighted") == Spreads.of(OTHERS, "emd_weighted")


@pytest.mark.parametrize("scenario", SCENARIOS)
@pytest.mark.parametrize("common", [True, False])
@pytest.mark.parametrize("n", [2, 3])
def test_intervals_hold_the_mean_of_all_seeds_and_images(scenario, common, n):
    # 720 intervals: three standard errors of a share of 95 % are 2.4 points
    held, length = coverage(scenario, n, common, draws=60)
    assert held >= 0.926
    if n == 2:
        assert length < max(coverage(scenario, n, common, 60, longer)[1], 1.1)
