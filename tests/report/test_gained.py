"""What quantizing gained: columns with their share of the baseline's, and memory against drift."""

from __future__ import annotations

import csv
import io

import pytest

from isofire.report.entries import entries_of
from isofire.report.gained import MEMORY, gains_of, memory_figure
from isofire.report.markdown import sweep_markdown
from isofire.report.page import sweep_page
from isofire.report.palette import Palette
from isofire.report.study import Study
from isofire.report.table import records
from isofire.study import to_csv

BEFORE = {"weight_kib_fp": 300.0, "state_kib_fp": 100.0, "synops_p50_fp": 2000.0, "energy_uj_fp": 4.0}


@pytest.fixture
def rows(folders):
    def row(name, kib, drift, **changes):
        known = {"weight_kib": kib, "state_kib": 10.0, "synops_p50": 1500.0, "energy_uj": 1.0, **BEFORE}
        return folders.row(name, spec=name, emd_layer_mean=drift, **known, **changes)

    return [
        row("small", 20.0, 0.02, bits=2),
        row("middle", 40.0, 0.005, bits=4),
        row("worse", 50.0, 0.03, bits=8),
        folders.control(emd_layer_mean=0.001, weight_kib=300.0, state_kib=100.0, **BEFORE),
    ]


def test_columns_are_values_and_shares_of_the_baseline(folders, rows):
    entries = entries_of(rows)
    assert [gain.key for gain in gains_of(entries)] == ["memory_kib", "synops_p50", "energy_uj"]
    assert [gain.text(entries[0]) for gain in gains_of(entries)] == ["30.0 (0.075×)", "1,500 (0.75×)", "1.00 (0.25×)"]
    study = Study.of(folders.MadeView(rows))
    page = sweep_page(study)
    assert '30.0 <small class="share">0.075×</small>' in page
    assert "| 30.0 (0.075×) |" in sweep_markdown(study)
    (record, *_) = csv.DictReader(io.StringIO(to_csv(records(study.entries))))
    assert (record["memory_kib_mean"], record["memory_kib_fp_mean"]) == ("30.0", "400.0")


def test_rows_without_cost_have_no_such_column_and_no_figure(folders):
    entries = entries_of([folders.row()])
    assert gains_of(entries) == []
    assert memory_figure("b", entries, Palette(entries[0].rows)) is None
    half = entries_of([folders.row(weight_kib=1.0)])
    assert MEMORY.mean(half[0]) is None


def test_the_figure_has_the_baseline_at_its_place_and_a_front(rows):
    entries = entries_of(rows)
    found = memory_figure("b", entries, Palette(rows))
    assert found is not None
    small, middle, worse = found["marks"]
    assert small["x"] < middle["x"] < worse["x"] < found["base"]["x"]
    # down is less drift, and the baseline has none
    assert worse["y"] < small["y"] < middle["y"] < found["base"]["y"]
    assert found["base"]["text"] == "400 KiB"
    assert found["front"] == [(mark["x"], mark["y"]) for mark in (small, middle)]
