from __future__ import annotations

import math

import pytest

from isofire.firing.evidence.outcome import Margins
from isofire.study.reference import controls_of, judged
from isofire.study.reference import reference_of as _reference_of


def reference_of(row, rows, measure="emd_layer_mean"):
    return _reference_of(row, controls_of(rows), measure)


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
    # a control is not held against itself
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
        # an image floor of 4,000 images, as rows of isofire 0.1 have it, is that of 1,000 by the root of their number
        ({"emd_floor": 0.02, "floor": "images"}, (0.02 * 4**0.5, "image floor")),
        ({"emd_floor": 0.02, "emd_floor_low": 0.01, "emd_floor_high": 0.03, "floor": "images"}, (0.02, "image floor")),
        ({"emd_floor": 0.02, "floor": "seeds"}, (0.02, "seed floor")),
        ({"emd_floor": None, "floor": None}, (0.005, "control")),
        ({"emd_floor": math.nan, "floor": "images"}, (0.005, "control")),
        # its control went through other steps, so the floor is the better reference although it is smaller
        ({"emd_floor": 0.001, "floor": "control", "target": "membrane"}, (0.001, "control")),
    ],
)
def test_the_larger_of_floor_and_control(folders, changes, expected):
    found = reference_of(folders.row(**changes), [folders.control()])
    assert (found.value, found.kind) == (pytest.approx(expected[0]), expected[1])
    assert found.same_steps


def test_a_floor_without_a_control_and_neither(folders):
    assert reference_of(folders.row(emd_floor=0.002, floor="seeds"), []).value == 0.002
    assert reference_of(folders.row(), []) is None


def test_rows_are_judged_beside_their_control_and_by_margins(folders):
    known = {"emd_low": 0.009, "emd_high": 0.011, "images_lost": 400, "images_won": 400}
    rows = [folders.row(**known), folders.control(emd_low=0.0049, emd_high=0.0051)]
    row, control = judged(rows)
    assert (row["drift_over_floor"], row["reference"]) == (pytest.approx(2.0), "control")
    # about 1.8 to 2.2 times: the default margin of 2 lies between
    assert row["drift_over_floor_low"] < 2 < row["drift_over_floor_high"]
    assert (row["keeps_accuracy"], row["keeps_firing"], row["kept"]) == ("undecided", "undecided", "undecided")
    assert (control["keeps_firing"], control["reference"]) == (None, None)
    wide = judged(rows, Margins(accuracy=0.05, firing=3))[0]
    assert (wide["keeps_accuracy"], wide["keeps_firing"], wide["kept"]) == ("keeps", "keeps", "keeps")
    narrow = judged(rows, Margins(accuracy=0.05, firing=1))[0]
    assert (narrow["keeps_firing"], narrow["kept"]) == ("fails", "fails")
    assert judged(judged(rows)) == judged(rows)


def test_without_the_images_lost_and_won_the_interval_is_rather_too_wide(folders):
    known, unknown = (judged([folders.row(images_lost=lost, images_won=lost)])[0] for lost in (40, None))
    assert unknown["accuracy_drop_low"] < known["accuracy_drop_low"] < 0 < known["accuracy_drop_high"]
    assert known["accuracy_drop_high"] < unknown["accuracy_drop_high"]
