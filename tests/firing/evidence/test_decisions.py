"""How decisions differ: counted by hand, Wilson's interval against scipy, coverage of the drop in test_verdict."""

from __future__ import annotations

import pytest
import scipy.stats
import torch

from isofire.firing.evidence.decisions import Decisions


def test_numbers_are_counted_image_by_image() -> None:
    labels, before, after = (torch.tensor(x) for x in ([0, 1, 2, 0, 1], [0, 1, 0, 1, 2], [0, 2, 2, 2, 2]))
    found = Decisions.of(before, after, labels)
    assert found == Decisions(images=5, lost=1, won=1, agreeing=2)
    assert found.accuracy_drop().estimate == 0
    assert found.agreement().estimate == 0.4
    assert found.to_dict()["agreement"]["low"] == found.agreement().low


@pytest.mark.parametrize(("agreeing", "images"), [(0, 10), (10, 10), (37, 50), (3, 400), (3999, 4000)])
@pytest.mark.parametrize("level", [0.9, 0.95])
def test_agreement_is_wilsons_interval(agreeing: int, images: int, level: float) -> None:
    interval = Decisions(images=images, lost=0, won=0, agreeing=agreeing).agreement(level)
    expected = scipy.stats.binomtest(agreeing, images).proportion_ci(level, "wilson")
    assert (interval.low, interval.high) == (pytest.approx(expected.low, abs=1e-9), pytest.approx(expected.high))


def test_intervals_keep_to_what_shares_can_be() -> None:
    all_lost = Decisions(images=1, lost=1, won=0, agreeing=0)
    assert all_lost.accuracy_drop().high == 1
    assert Decisions(images=1, lost=0, won=1, agreeing=1).accuracy_drop().low == -1
    assert all(Decisions(images=n, lost=0, won=0, agreeing=0).agreement().low == 0 for n in range(1, 40))


def test_the_drop_is_agresti_and_mins() -> None:
    # 100 images, 9 lost, 2 won: centre 7/102, error sqrt(12 - 49/102)/102
    interval = Decisions(images=100, lost=9, won=2, agreeing=80).accuracy_drop()
    half = 1.959964 * (12 - 49 / 102) ** 0.5 / 102
    assert interval.estimate == pytest.approx(0.07)
    assert (interval.low, interval.high) == (pytest.approx(7 / 102 - half), pytest.approx(7 / 102 + half))
