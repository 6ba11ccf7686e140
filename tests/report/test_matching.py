from __future__ import annotations

import csv

import pytest

from isofire.report import write_comparison
from isofire.report.compare import lead, pair_records
from isofire.report.matching import match, what_differs
from isofire.report.study import Study


def study(folders, rows):
    return Study.of(folders.MadeView(rows))


def test_cells_match_by_baseline_mode_seed_and_spec(folders):
    a = [
        folders.row("a1", spec="s"),
        folders.row("a2", spec="s", seed=1),
        folders.row("a3", spec="t"),
        folders.control(),
    ]
    b = [folders.row("b1", spec="t"), folders.row("b2", spec="s"), folders.row("b3", spec="s", mode="qat"),
         folders.control("b4")]  # fmt: skip
    found = match(study(folders, a), study(folders, b))
    assert [(p.a["cell"], p.b["cell"]) for p in found.pairs] == [("a1", "b2"), ("a3", "b1"), ("control", "b4")]
    assert [row["cell"] for row in found.only_a] == ["a2"]
    assert [row["cell"] for row in found.only_b] == ["b3"]


def test_equal_cells_pair_in_their_order(folders):
    a = [folders.row("a1", spec="s"), folders.row("a2", spec="s")]
    found = match(study(folders, a), study(folders, [folders.row("b1", spec="s")]))
    assert [(p.a["cell"], p.b["cell"]) for p in found.pairs] == [("a1", "b1")]
    assert [row["cell"] for row in found.only_a] == ["a2"]


def test_differences_are_second_minus_first(folders):
    a, b = [folders.row("a", spec="s", accuracy=0.9)], [folders.row("b", spec="s", accuracy=0.85, emd_layer_mean=0.03)]
    found = match(study(folders, a), study(folders, b))
    (record,) = pair_records(found)
    assert record["accuracy_difference"] == pytest.approx(-0.05)
    assert record["emd_layer_mean_difference"] == pytest.approx(0.02)
    assert "−5.00 points of accuracy, +0.0200 EMD" in lead(found)[1]


def test_what_differs_in_nested_settings():
    a = {"seeds": [0, 1], "qat": {"lr": 0.1}, "cells": [{"bits": [2]}, {"bits": [4]}], "same": 1}
    b = {"seeds": [0], "qat": {"lr": 0.1}, "cells": [{"bits": [2]}, {"bits": [8]}], "same": 1, "new": "x"}
    assert what_differs(a, b) == [("seeds", "[0, 1]", "[0]"), ("cells.1.bits", "[4]", "[8]"), ("new", "–", "x")]


def test_nothing_in_common(folders, tmp_path):
    a, b = folders.MadeView([folders.row("a", spec="s")]), folders.MadeView([folders.row("b", spec="t")])
    page, text, table = write_comparison(a, b, tmp_path / "c.html")
    assert "0 cells in both" in page.read_text()
    assert "Only in A: weights uniform 4 bit" in text.read_text()
    assert [line["cell_a"] or line["cell_b"] for line in csv.DictReader(table.open())] == ["a", "b"]


def test_two_real_sweeps(folders, sweep, other, tmp_path):
    page, text, _ = write_comparison(folders.FolderView(sweep), folders.FolderView(other), tmp_path / "c.html")
    assert "All of them have the same numbers." in page.read_text()
    assert "4 cells in both" in page.read_text()
    assert "configuration: seeds" in text.read_text()
