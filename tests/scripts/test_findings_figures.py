"""Figures of the first look: whole, with labels that do not collide."""

from __future__ import annotations

from itertools import combinations

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from scripts.findings.__main__ import load, load_floors
from scripts.findings.cells import MEMBRANES, MODES, WEIGHTS, emd
from scripts.findings.figures import by_bits, dead_share, step_or_clip
from scripts.findings.levels import GridUse, grid_use

from isofire.models import pretrained


@pytest.fixture(scope="module")
def uses() -> list[GridUse]:
    model = pretrained("sew_resnet8-cifar10")
    return [grid_use(model, clip, bits) for clip in (1.0, 10.0) for bits in (2, 3, 4, 6, 8)]


def drawn(figure):
    FigureCanvasAgg(figure).draw()
    (legend,) = figure.legends
    box = legend.get_window_extent()
    assert box.x0 >= 0
    assert box.x1 <= figure.bbox.x1
    assert not any(box.overlaps(axis.get_tightbbox()) for axis in figure.axes)
    return figure


@pytest.mark.parametrize("settings", [WEIGHTS, MEMBRANES], ids=["weights", "membranes"])
def test_curves_have_colours_of_their_own_and_all_marks_lie_within(settings):
    cells, floors = load(), load_floors()
    figure = drawn(by_bits(cells, floors, settings, "title"))
    values = [emd(row) for mode in MODES for item in settings for row in cells.of(item, mode).values()]
    for axis in figure.axes[2:]:
        low, high = axis.get_ylim()
        assert low < min(values) < max(values) < high
        assert low > 0.3 * min(*values, floors.value("images").value), "the band below the floor fills the panel"
        assert not any("e" in label.get_text() for label in axis.get_yticklabels())
    lines = {line.get_label(): line.get_color() for line in figure.axes[0].lines if line.get_marker() != "None"}
    assert len(set(lines.values())) == len(settings)


def test_numbers_of_bits_do_not_collide(uses):
    figure = drawn(step_or_clip(load(), load_floors(), uses, "sample"))
    for axis in figure.axes:
        assert len(axis.texts) == 10
        for one, other in combinations(axis.texts, 2):
            assert not one.get_window_extent().overlaps(other.get_window_extent()), (one, other)


def test_the_dead_share_is_whole():
    drawn(dead_share(load(), "sample"))
