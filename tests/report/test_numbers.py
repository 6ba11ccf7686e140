from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isofire.firing.evidence.interval import Interval
from isofire.report.axes import accuracy_ticks, error_axis, far_below, linear_axis, log_axis, nice, tick_text
from isofire.report.numbers import fixed, multiple_text, percent, points, signed, significant, times, whole, with_spread


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (percent(0.12345), "12.35"),
        (percent(None), "–"),
        (percent(math.nan), "–"),
        (points(-0.0123), "−1.23"),
        (points(0.0123), "+1.23"),
        (significant(0.0001234), "0.000123"),
        (significant(-0.5), "−0.500"),
        (significant(0), "0"),
        (significant(0.000998, 2), "0.0010"),
        (fixed(0.9987), "1.00"),
        (fixed(math.nan), "–"),
        (points(-0.000001), "+0.00"),
        (signed(0.25), "+0.250"),
        (times(2.44), "2.4×"),
        (times(31.6), "32×"),
        (times(120.4), "120×"),
        (times(9.96), "10×"),
        (times(1.0), "1×"),
        (times(0.996), "1×"),
        (times(1.04), "1.04×"),
        (times(1.002), "1.002×"),
        (times(1 + 1e-9), ">1×"),
        (multiple_text(Interval(estimate=174, low=141.2, high=226, level=0.95, error=1)), "174× (141 to 226)"),
        (multiple_text(Interval(estimate=2.4, low=0, high=math.inf, level=0.95, error=1)), "2.4× (0 to ∞)"),
        (significant(-math.inf), "−∞"),
        (whole(65536), "65,536"),
        (with_spread("1", None), "1"),
        (with_spread("1", "0.1"), "1 ± 0.1"),
    ],
)
def test_texts(text, expected):
    assert text == expected


@settings(deadline=None)
@given(st.floats(0, 2))
def test_a_multiple_above_the_limit_never_reads_as_the_limit(value):
    text = times(value).removesuffix("×")
    assert (text.startswith(">") or float(text) > 1) == (value > 1)


@settings(deadline=None)
@given(st.floats(1e-6, 1e6))
def test_nice_is_the_next_of_one_two_five(value):
    found = nice(value)
    assert value <= found * (1 + 1e-9)
    assert found < 2.5 * value * (1 + 1e-9)
    mantissa = found / 10 ** math.floor(math.log10(found) + 1e-9)
    assert any(abs(mantissa - m) < 1e-6 for m in (1, 2, 5, 10))


@settings(deadline=None)
@given(st.lists(st.floats(1e-6, 10), min_size=1, max_size=9))
def test_log_axis_holds_its_values_in_order(values):
    axis = log_axis(values, 0, 100)
    places = [axis.at(value) for value in sorted(values)]
    assert places == sorted(places)
    assert places[0] >= 0
    assert places[-1] <= 100
    assert axis.ticks()
    assert all(axis.low <= tick <= axis.high for tick in axis.ticks())


@settings(deadline=None)
@given(st.lists(st.floats(-100, 100), min_size=1, max_size=9))
def test_linear_axis_may_run_downwards(values):
    axis = linear_axis(values, 300, 10, least=1.0)
    places = [axis.at(value) for value in sorted(values)]
    assert places == sorted(places, reverse=True)
    assert 1 <= len(axis.ticks()) <= 12


@settings(deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=9), st.integers(10, 10_000))
def test_error_axis_has_accuracy_upwards_and_labels_where_they_belong(shares, images):
    axis = error_axis(shares, images, 300, 10)
    places = [axis.at(100 * (1 - share)) for share in sorted(shares)]
    assert places == sorted(places, reverse=True)
    assert all(10 <= place <= 300 for place in places)
    ticks = accuracy_ticks(axis)
    for place, label in ticks:
        assert place == axis.at(100 - float(label))
    assert 3 <= len(ticks) <= 15


def test_error_axis_keeps_good_accuracies_apart():
    axis = error_axis([0.98, 0.96, 0.5], 1000, 300, 10)
    good, fair, bad = (axis.at(error) for error in (2, 4, 50))
    assert fair - good == pytest.approx((bad - fair) * math.log(2) / math.log(12.5), abs=0.5)
    assert [label for _, label in accuracy_ticks(axis)] == ["98", "95", "90", "80", "70", "50"]
    assert len(accuracy_ticks(error_axis([0.91, 0.915], 1000, 300, 10))) >= 3


def test_an_error_axis_of_accuracies_close_together_is_mostly_theirs():
    axis = error_axis([0.40, 0.453], 10_000, 300, 10)
    places = axis.at(54.7), axis.at(60)
    assert places[1] - places[0] > 0.5 * 290
    assert 10 < places[0] < places[1] < 300
    # and none of them is far below the others
    assert far_below([0.40, 0.411, 0.427, *(0.44 + k / 1000 for k in range(12))], [0.44, 0.453], 10_000) is None


def test_log_axis_without_a_positive_value():
    axis = log_axis([0.0], 0, 100)
    assert axis.at(0.0) == 0


def test_tick_text():
    assert [tick_text(value) for value in (0, 0.003, 20.0, 0.00002)] == ["0", "0.003", "20", "0.00002"]
