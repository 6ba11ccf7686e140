from __future__ import annotations

import json

from isofire.cli import main


def test_report_of_a_sweep(folders, sweep, tmp_path, capsys):
    page = tmp_path / "page.html"
    assert main(["report", str(sweep), "--out", str(page), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["files"] == [str(page.with_suffix(end)) for end in (".html", ".md", ".csv")]
    assert all((tmp_path / f"page{end}").stat().st_size > 1000 for end in (".html", ".md", ".csv"))
    assert (len(found["settings"]), found["failed"], found["pending"]) == (len(folders.CELLS), 1, 1)
    assert "settings" in found["summary"][0]


def test_two_sweeps_and_where_files_go_unasked(sweep, other, capsys):
    assert main(["report", str(other), str(sweep)]) == 0
    said = capsys.readouterr().out
    assert "4 cells in both" in said
    assert (other / "comparison.html").exists()


def test_a_folder_that_is_no_sweep_and_a_page_that_is_no_page(sweep, tmp_path, capsys):
    assert main(["report", str(tmp_path)]) == 2
    assert "no plan.json" in capsys.readouterr().err
    assert main(["report", str(sweep), "--out", str(tmp_path / "page.pdf")]) == 2
    assert "ends in .html" in capsys.readouterr().err
