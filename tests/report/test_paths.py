"""Paths of figures, read back into numbers."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from isofire.report import rates as drawing
from isofire.report.levels import BOTTOM, TOP, WIDTH, levels_panel


def corners(path: str) -> list[tuple[float, float]]:
    """The points of a path of M, h, v, H, V, Z."""
    x, y = 0.0, 0.0
    found = []
    for command, numbers in re.findall(r"([MhvHVZ])([-\d.,]*)", path):
        if command == "M":
            x, y = (float(n) for n in numbers.split(","))
        elif command != "Z":
            value = float(numbers)
            x = {"h": x + value, "H": value}.get(command, x)
            y = {"v": y + value, "V": value}.get(command, y)
        found.append((x, y))
    return found


@settings(deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=300))
@example([1.0, 0.23])
def test_distribution_function_lies_on_the_exact_one(values):
    rates = np.array(values)
    end = drawing.end_of(rates)
    points = corners(drawing.function_path(rates, end))
    top, bottom = drawing.FUNCTION
    xs, ys = [x for x, _ in points], [y for _, y in points]
    assert xs == sorted(xs)
    assert ys == sorted(ys, reverse=True)
    assert (points[0], xs[-1]) == ((0, bottom), drawing.WIDTH)
    # the last height is the share of neurons within the axis
    assert (bottom - ys[-1]) / (bottom - top) == pytest.approx((rates <= end).mean(), abs=0.03)
    for x, y in points:
        below = (rates < (x - 0.6) / drawing.WIDTH * end).mean()
        above = (rates <= (x + 0.6) / drawing.WIDTH * end).mean()
        assert below - 0.05 <= (bottom - y) / (bottom - top) <= above + 0.02


def test_distribution_function_is_thinned():
    rates = np.random.default_rng(0).uniform(size=100_000) ** 4
    assert drawing.function_path(rates, 1.0).count("v") <= 40


@settings(deadline=None)
@given(st.lists(st.floats(0, 2), min_size=1, max_size=100))
def test_histogram_against_numpy(values):
    rates = np.array(values)
    shares = drawing.histogram_shares(rates, 0.8)
    # the bin of a rate that lies on an edge is a matter of rounding
    assert sum(shares) == pytest.approx(1)
    assert shares[-1] >= (rates > 0.8).mean() - 1e-12
    clipped = np.clip(rates, 0, 0.8)
    expected, edges = np.histogram(clipped, drawing.BINS, (0, 0.8))
    if np.abs(clipped[:, None] - edges[None, 1:-1]).min() > 1e-9:
        assert shares == pytest.approx((expected / rates.size).tolist())


def test_bars_are_as_wide_as_the_axis_and_as_high_as_the_root():
    shares = [0.64, 0.16, 0.16, 0.04] + [0.0] * (drawing.BINS - 4)
    points = corners(drawing.bars_path(shares, 0.64))
    top, bottom = drawing.HISTOGRAM
    assert max(x for x, _ in points) == drawing.WIDTH
    heights = list(dict.fromkeys(bottom - y for _, y in points if y != bottom))
    assert heights == pytest.approx([bottom - top, (bottom - top) / 2, (bottom - top) / 4], abs=0.5)


def entry(**changes):
    found = {"module": "m", "target": "membrane", "bits": 2, "edges": np.linspace(-1, 1, 65).tolist(),
             "counts": [0] * 32 + [4, 8] + [0] * 30, "levels": [-1.0, 0.0, 0.5, 1.0], "threshold": 0.5,
             "note": None}  # fmt: skip
    return found | changes


def test_levels_and_threshold_lie_where_they_belong():
    panel = levels_panel(entry())
    assert [x for x, _ in corners(panel["l"])[::2]] == [0, WIDTH / 2, 0.75 * WIDTH, WIDTH]
    assert corners(panel["t"])[0][0] == 0.75 * WIDTH
    points = corners(panel["h"])
    assert min(y for _, y in points) == TOP
    assert (points[0], points[-2]) == ((0, BOTTOM), (WIDTH, BOTTOM))
    assert panel["s"] == "4 levels; threshold 0.500"
    assert (panel["a"], panel["b"], panel["z"], panel["c"], panel["n"]) == ("−1.0", "0", "120", "1.0", "")


def test_levels_out_of_view_are_counted_and_not_drawn():
    panel = levels_panel(entry(levels=[-10.0, -0.5, 0.5, 10.0], threshold=None, note="why"))
    assert panel["l"].count("M") == 2
    assert panel["s"] == "4 levels, 2 in view"
    assert (panel["t"], panel["n"]) == ("", "why")


def test_very_many_levels_are_said():
    panel = levels_panel(entry(levels=np.linspace(-1, 1, 256).tolist(), threshold=None))
    assert (panel["l"], panel["s"]) == ("", "256 levels, too close to draw")
