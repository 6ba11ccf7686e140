"""A registered measure has its place in every form of a report."""

from __future__ import annotations

import re
from types import ModuleType

from isofire.firing import Measure
from isofire.report.compare import comparison_page
from isofire.report.markdown import sweep_markdown
from isofire.report.matching import match
from isofire.report.page import sweep_page
from isofire.report.study import Study
from isofire.report.table import records


def test_a_report_shows_it(ks: Measure, folders: ModuleType) -> None:
    rows = [folders.row("a", spec="a", ks=0.123), folders.control(ks=0.05)]
    study = Study.of(folders.MadeView(rows))
    page, text = sweep_page(study), sweep_markdown(study)
    assert 'data-key="ks"' in page
    assert re.findall(r'data-v="0.123">(.*?)</td>', page) == ["0.123"]
    assert "KS: largest gap between the distribution functions of the rates" in page
    # a column and a heat map of settings, a column of layers
    assert page.count(">KS</th>") == 2
    assert ">KS</text>" in page
    assert "| KS |" in text
    assert "| 0.123 |" in text
    assert records(study.entries)[0]["ks_mean"] == 0.123
    both = comparison_page(study, study, match(study, study))
    assert 'data-key="ks_a"' in both
    assert 'data-v="0.123">0.123</td>' in both
