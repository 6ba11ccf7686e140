"""Terminal, rows, page, Markdown and CSV of one stored run say the same of every setting."""

from __future__ import annotations

import csv
import io
import re

import pytest

from isofire.firing.evidence.outcome import MARKS, Margins
from isofire.report.markdown import sweep_markdown
from isofire.report.page import sweep_page
from isofire.report.study import Study
from isofire.report.table import records
from isofire.study import text_table, to_csv
from isofire.study.rows import read_rows, write_rows
from isofire.sweep.results import Results


@pytest.fixture(params=[None, Margins(accuracy=0.5, firing=30.0)])
def margins(request):
    return request.param


@pytest.fixture
def view(folders, sweep, margins):
    """One seed of a sweep, so that a setting is a row."""
    found = folders.FolderView(sweep)
    plan = {**found.plan, "cells": [cell for cell in found.plan["cells"] if cell["seed"] == 0]}
    if margins is not None:
        plan["config"] = plan["config"] | {"margins": {"accuracy": margins.accuracy, "firing": margins.firing}}
    return Results(sweep, plan)


def test_they_agree(view, margins, tmp_path):
    assert view.margins == (margins or Margins())
    study = Study.of(view)
    said = {entry.cells[0]: entry for entry in study.entries}
    assert len(said) == len(view.rows) > 10
    assert len({entry.outcome for entry in study.entries}) > 1
    table = text_table(view.rows, width=300).splitlines()
    body = table[next(i for i, line in enumerate(table) if line.startswith("---")) + 1 :]
    page, text = sweep_page(study), sweep_markdown(study)
    listed = list(csv.DictReader(io.StringIO(to_csv(records(study.entries)))))
    for row, line, record in zip(view.rows, body, listed, strict=False):
        entry = said[row["cell"]]
        kept = entry.kept
        assert (row["kept"], row["keeps_accuracy"], row["keeps_firing"]) == (kept.outcome, kept.accuracy, kept.firing)
        assert line.endswith(f"{MARKS[kept.outcome]} {kept.words}")
        assert (record["kept"], record["keeps_firing"]) == (kept.outcome, kept.firing)
        assert record["drift_over_floor"] == repr(row["drift_over_floor"])
        shown = re.search(rf'<tr data-entry="{entry.number}" data-cell="{row["cell"]}".*?</tr>', page, re.DOTALL)
        assert shown is not None
        assert f'<span class="verdict {kept.outcome}">{entry.verdict}</span>' in shown[0]
    assert text.count("✗ fails") >= sum(entry.outcome == "fails" for entry in study.entries)
    # and what was written reads back the same
    for path in write_rows(tmp_path, view.rows):
        assert [row["kept"] for row in read_rows(path)] == [row["kept"] for row in view.rows]
