from __future__ import annotations

import math

import pytest

from isofire.report.reference import controls_of
from isofire.report.reference import reference_of as _reference_of


def reference_of(row, rows):
    return _reference_of(row, controls_of(rows))


def test_control_of_the_same_mode_baseline_and_seed(folders):
    row = folders.row(seed=1)
    rows = [
        folders.control("other seed", seed=0, emd_layer_mean=0.1),
        folders.control("other mode", seed=1, mode="qat", emd_layer_mean=0.2),
        folders.control("other network", seed=1, baseline="c", emd_layer_mean=0.3),
        folders.control("this", seed=1, emd_layer_mean=0.004),
        row,
    ]
    found = reference_of(row, rows)
    assert (found.value, found.kind, found.same_steps) == (0.004, "control", True)
    assert found.multiple(0.01) == pytest.approx(2.5)
    assert reference_of(row, rows[:3]) is None
    assert reference_of(rows[3], rows) is None


def test_a_control_that_does_not_drift_is_no_unit(folders):
    assert reference_of(folders.row(), [folders.control(emd_layer_mean=0.0)]) is None


def test_control_with_the_same_options_comes_first(folders):
    rows = [folders.control(emd_layer_mean=0.1), folders.control("b", options="from_scratch", emd_layer_mean=0.2)]
    assert reference_of(folders.row(options="from_scratch"), rows).value == 0.2


@pytest.mark.parametrize(
    ("changes", "same"),
    [
        ({"target": "weights"}, True),
        ({"target": "membrane"}, False),
        ({"target": "membrane", "options": "reestimate_bn=always"}, True),
        ({"target": "membrane", "mode": "qat"}, True),
        ({"target": "weights", "options": "reestimate_bn=never"}, False),
    ],
)
def test_whether_the_cell_went_through_the_control_s_steps(folders, changes, same):
    rows = [folders.control(), folders.control("q", mode="qat")]
    assert reference_of(folders.row(**changes), rows).same_steps is same


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"emd_floor": 0.001, "floor": "images"}, (0.005, "control")),
        ({"emd_floor": 0.02, "floor": "images"}, (0.02, "image floor")),
        ({"emd_floor": 0.02, "floor": "seeds"}, (0.02, "seed floor")),
        ({"emd_floor": None, "floor": None}, (0.005, "control")),
        ({"emd_floor": math.nan, "floor": "images"}, (0.005, "control")),
        # its control went through other steps, so the floor is the better reference although it is smaller
        ({"emd_floor": 0.001, "floor": "images", "target": "membrane"}, (0.001, "image floor")),
    ],
)
def test_the_larger_of_floor_and_control(folders, changes, expected):
    found = reference_of(folders.row(**changes), [folders.control()])
    assert (found.value, found.kind) == expected
    assert found.same_steps


def test_a_floor_without_a_control_and_neither(folders):
    assert reference_of(folders.row(emd_floor=0.002, floor="images"), []).value == 0.002
    assert reference_of(folders.row(), []) is None
