"""How decisions differ: counted by hand, mid-P intervals against scipy, and how often they hold."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import scipy.stats
import torch

from isofire.firing.evidence.decisions import Decisions, share_interval


def test_numbers_are_counted_image_by_image() -> None:
    labels, before, after = (torch.tensor(x) for x in ([0, 1, 2, 0, 1], [0, 1, 0, 1, 2], [0, 2, 2, 2, 2]))
    found = Decisions.of(before, after, labels)
    assert found == Decisions(images=5, lost=1, won=1, agreeing=2)
    assert found.accuracy_drop().estimate == 0
    assert found.agreement().estimate == 0.4
    assert found.to_dict()["agreement"]["low"] == found.agreement().low


@pytest.mark.parametrize(("agreeing", "images"), [(0, 10), (10, 10), (37, 50), (3, 400), (3999, 4000)])
@pytest.mark.parametrize("level", [0.9, 0.95])
def test_agreement_is_clopper_and_pearsons_interval(agreeing: int, images: int, level: float) -> None:
    interval = Decisions(images=images, lost=0, won=0, agreeing=agreeing).agreement(level)
    expected = scipy.stats.binomtest(agreeing, images).proportion_ci(level, "exact")
    assert (interval.low, interval.high) == (pytest.approx(expected.low, abs=1e-12), pytest.approx(expected.high))


@pytest.mark.parametrize(("number", "of"), [(1, 10), (37, 50), (3, 400)])
def test_the_mid_p_interval_counts_what_was_seen_by_half(number: int, of: int) -> None:
    interval, binomial = share_interval(number, of, own=0.5), scipy.stats.binom
    above = binomial.sf(number, of, interval.low) + binomial.pmf(number, of, interval.low) / 2
    below = binomial.cdf(number - 1, of, interval.high) + binomial.pmf(number, of, interval.high) / 2
    assert (above, below) == (pytest.approx(0.025), pytest.approx(0.025))


@pytest.mark.parametrize("images", [50, 500])
def test_shares_are_covered_also_near_the_ends(images: int) -> None:
    """Exactly, by adding up the numbers whose interval holds the share."""
    numbers = np.arange(images + 1)
    ends = [Decisions(images=images, lost=0, won=0, agreeing=int(k)).agreement() for k in numbers]
    for missing in (0.05, 0.17, 0.5, 1, 2, 3, 3.5, 5, 8, 20):
        share = 1 - missing / images
        held = np.array([share in interval for interval in ends])
        assert scipy.stats.binom.pmf(numbers, images, share)[held].sum() >= 0.95, missing


@pytest.mark.parametrize("images", [50, 1000])
def test_drops_of_few_images_are_covered(images: int) -> None:
    """Exactly, by adding up the numbers of images lost and won; normal intervals hold (2, 0) 87 times in a hundred."""
    kept: dict[tuple[int, int], tuple[float, float]] = {}
    for lost, won in ((2.0, 0.0), (2.0, 1.0), (5.0, 0.5), (1.0, 1.0), (0.2, 0.0)):
        held = 0.0
        for b, c in itertools.product(range(20), range(12)):
            if (b, c) not in kept:
                interval = Decisions(images=images, lost=b, won=c, agreeing=0).accuracy_drop()
                kept[b, c] = interval.low, interval.high
            shares = [lost / images, won / images, 1 - (lost + won) / images]
            if kept[b, c][0] <= (lost - won) / images <= kept[b, c][1]:
                held += scipy.stats.multinomial.pmf([b, c, images - b - c], images, shares)
        assert held >= 0.93, (lost, won)


def test_intervals_keep_to_what_shares_can_be() -> None:
    all_lost = Decisions(images=1, lost=1, won=0, agreeing=0)
    assert all_lost.accuracy_drop().high == 1
    assert Decisions(images=1, lost=0, won=1, agreeing=1).accuracy_drop().low == -1
    assert all(Decisions(images=n, lost=0, won=0, agreeing=0).agreement().low == 0 for n in range(1, 40))


def test_the_drop_by_hand() -> None:
    # 100 images, 9 lost, none won: the lower end has the wing of both, the upper only that of those lost
    interval = Decisions(images=100, lost=9, won=0, agreeing=80).accuracy_drop()
    lost, won = share_interval(9, 100, own=0.5), share_interval(0, 100, own=0.5)
    assert interval.estimate == pytest.approx(0.09)
    assert interval.low == pytest.approx(0.09 - ((0.09 - lost.low) ** 2 + won.high**2) ** 0.5)
    assert interval.high == pytest.approx(lost.high)
    # none of 100: half of (1 - p)^100 is .025
    assert won.high == pytest.approx(1 - 0.05**0.01)
    # as many won as lost, correlated by -p / (1 - p)
    even = Decisions(images=100, lost=9, won=9, agreeing=80).accuracy_drop()
    wings = lost.high - 0.09, 0.09 - lost.low
    half = (wings[0] ** 2 + wings[1] ** 2 + 2 * 0.09 / 0.91 * wings[0] * wings[1]) ** 0.5
    assert (even.low, even.high) == (pytest.approx(-half), pytest.approx(half))
