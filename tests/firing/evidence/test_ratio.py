"""Drift / floor with the uncertainty of both: against the equation, a known quotient, and the edges."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isofire.firing.evidence.interval import Interval
from isofire.firing.evidence.ratio import Magnitude, magnitude, ratio_interval

POSITIVE = st.floats(0.01, 10)
SHARE = st.floats(0.01, 0.99)


@given(POSITIVE, POSITIVE, st.tuples(SHARE, SHARE, SHARE, SHARE))
def test_the_ends_are_where_the_difference_no_longer_includes_0(
    d: float, f: float, shares: tuple[float, float, float, float]
) -> None:
    """MOVER for d - k f: the lower limit is 0 at the lower end, the upper limit at the upper end."""
    below, above, floor_below, floor_above = shares
    drift, floor = (
        Magnitude(d, d * (1 - below), d * (1 + above)),
        Magnitude(f, f * (1 - floor_below), f * (1 + floor_above)),
    )
    low, high = ratio_interval(drift, floor)
    assert low <= d / f <= high
    for k, wing, other in ((low, d * below, f * floor_above), (high, d * above, f * floor_below)):
        assert abs(d - k * f) == pytest.approx(math.hypot(wing, k * other), rel=1e-6, abs=1e-9)


@given(POSITIVE, POSITIVE, SHARE)
def test_an_exact_floor_divides_and_a_wider_one_widens(d: float, f: float, share: float) -> None:
    drift = Magnitude(d, d * (1 - share), d * (1 + share))
    low, high = ratio_interval(drift, Magnitude(f, f, f))
    assert (low, high) == (pytest.approx(drift.low / f), pytest.approx(drift.high / f))
    wider = ratio_interval(drift, Magnitude(f, 0.8 * f, 1.2 * f))
    assert wider[0] <= low
    assert wider[1] >= high


def test_a_nominal_95_percent_interval_holds_the_quotient_so_often() -> None:
    rng = np.random.default_rng(0)
    d, f, errors, draws = 3.0, 2.0, (0.3, 0.25), 4000
    hits = 0
    for first, second in rng.normal((d, f), errors, (draws, 2)):
        halves = 1.96 * np.array(errors)
        low, high = ratio_interval(
            Magnitude(first, first - halves[0], first + halves[0]),
            Magnitude(second, second - halves[1], second + halves[1]),
        )
        hits += low <= d / f <= high
    assert 0.93 <= hits / draws <= 0.97


@pytest.mark.parametrize(
    ("drift", "floor", "expected"),
    [
        ((2, 1, 3), (0, 0, 0), (math.inf, math.inf)),
        ((2, 0, 3), (0, 0, 0), (0, math.inf)),
        ((0, 0, 0), (1, 1, 1), (0, 0)),
        # a floor measured as 0 that may be more
        ((6, 5, 7), (0, 0, 100), (35**0.5 / 100, math.inf)),
        ((6, 5, 7), (0.001, 0, 0), (math.inf, math.inf)),
        ((0, 0, 1), (1, 0, 2), (0, math.inf)),
        # a value outside its interval, which is freed of the bias, counts as the nearer end
        ((4, 1, 3), (1, 1, 1), (1, 3)),
    ],
)
def test_edges(drift: tuple[float, ...], floor: tuple[float, ...], expected: tuple[float, float]) -> None:
    assert ratio_interval(Magnitude(*drift), Magnitude(*floor)) == pytest.approx(expected)


def test_unknown_ends_are_unknown() -> None:
    assert all(map(math.isnan, ratio_interval(Magnitude(2, 1, 3), Magnitude(1, math.nan, math.nan))))
    assert all(map(math.isnan, ratio_interval(Magnitude(math.nan, math.nan, math.nan), Magnitude(1, 1, 1))))


@pytest.mark.parametrize(("ends", "expected"), [((-3, -1), (2, 1, 3)), ((-3, 1), (1, 0, 3)), ((1, 3), (2, 1, 3))])
def test_a_sign_is_dropped(ends: tuple[float, float], expected: tuple[float, float, float]) -> None:
    interval = Interval(estimate=sum(ends) / 2, low=ends[0], high=ends[1], level=0.95, error=0.0)
    assert magnitude(interval) == expected
