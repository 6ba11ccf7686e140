"""A sweep for a paper: LaTeX that LaTeX takes, numbers as on the page, figures of column width."""

from __future__ import annotations

import re

import pytest

from isofire.report.figures import COLUMN, write_figures
from isofire.report.paper import escaped, latex
from isofire.report.study import Study


@pytest.fixture
def study(folders):
    rows = [folders.control(), folders.row("a", spec="a", emd_layer_mean=0.004), folders.row("b_1", spec="b", bits=2)]
    return Study.of(folders.MadeView(rows))


def test_the_table_has_a_line_a_setting_and_says_what_the_page_says(study) -> None:
    text = latex(study)
    body = text.split(r"\midrule")[1].split(r"\bottomrule")[0].strip().splitlines()
    assert len(body) == len(study.entries)
    heads = text.split(r"\toprule")[1].split(r"\midrule")[0]
    assert {line.count("&") for line in (*body, heads)} == {7}
    assert escaped(study.entries[1].verdict) in body[1]
    assert "n = 4,000 test images" in text
    assert "at most 1 points, and firing if that of drift over floor is at most 2" in text
    assert "arXiv:2604.14487" in text
    # every special character is escaped outside of commands
    assert not re.search(r"(?<!\\)[#_]", text.split("% @inproceedings")[0].replace(r"\begin{tabular}", ""))


def test_figures_are_as_wide_as_a_column(study, tmp_path) -> None:
    pytest.importorskip("matplotlib")
    (path,) = write_figures(study, tmp_path / "report.html", "svg")
    assert path.name == "report-scatter.svg"
    width = re.search(r'<svg[^>]*width="([\d.]+)pt"', path.read_text())
    assert width is not None
    assert float(width[1]) == pytest.approx(72 * COLUMN)
