from __future__ import annotations

import json
import shutil

from isofire.cli import main


def test_report_of_a_sweep(folders, sweep, tmp_path, capsys):
    page = tmp_path / "page.html"
    assert main(["report", str(sweep), "--out", str(page), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["files"] == [str(page.with_suffix(end)) for end in (".html", ".md", ".csv")]
    assert all((tmp_path / f"page{end}").stat().st_size > 1000 for end in (".html", ".md", ".csv"))
    assert (len(found["settings"]), found["failed"], found["pending"]) == (len(folders.CELLS), 1, 1)
    assert "settings" in found["summary"][0]


def test_a_damaged_cell_is_told_before_the_headline(folders, sweep, tmp_path, capsys):
    folder = shutil.copytree(sweep, tmp_path / "sweep")
    (folder / "cells" / "s0c01" / "row.json").write_text("{")
    assert main(["report", str(folder), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["damaged"], found["failed"], found["pending"]) == (1, 1, 1)
    assert main(["report", str(folder)]) == 0
    said = capsys.readouterr().out
    assert said.startswith(found["caveats"][0])
    assert "1 damaged" in found["caveats"][0]
    assert said.index(found["caveats"][0]) < said.index(found["summary"][0])


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


def test_rows_without_their_cells_are_no_sweep_that_has_not_run(sweep, tmp_path, capsys):
    folder = shutil.copytree(sweep, tmp_path / "sweep", ignore=shutil.ignore_patterns("cells"))
    for command in ("report", "status"):
        # nothing of it has run
        (folder / "results.json").write_text('{"version": 1, "environment": {}, "rows": []}')
        assert main([command, str(folder)]) == 0, capsys.readouterr().err
        (folder / "results.json").write_text('{"version": 1, "environment": {}, "rows": [{"cell": "s0c01"}]}')
        assert main([command, str(folder)]) == 2
        assert "read results.csv itself" in capsys.readouterr().err
