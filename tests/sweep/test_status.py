"""`isofire status` of a finished sweep in which cells were damaged or failed."""

from __future__ import annotations

import json
import shutil

from isofire.cli.app import main
from isofire.sweep import Results
from isofire.sweep.store import Store


def test_status_tells_damaged_cells_and_failures_once_a_reason(tmp_path, finished, capsys) -> None:
    folder = tmp_path / "sweep"
    shutil.copytree(finished, folder)
    rows = Results.open(folder).rows
    (folder / "cells" / rows[0]["cell"] / "row.json").write_text("{")
    for row in rows[1:4]:
        shutil.rmtree(folder / "cells" / row["cell"])
        Store(folder).fail(row["cell"], {"title": "a cell", "type": "ModelError", "reason": "no", "traceback": ""})
    assert main(["status", str(folder)]) == 0
    text = capsys.readouterr().out
    assert text.count("damaged: ") == 1
    assert "sweep again to repair it" in text
    assert text.count("failed: a cell and 2 more: ModelError: no") == 1
    assert "3 failed, 1 waiting" in text
    assert main(["status", str(folder), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [item["key"] for item in document["damaged"]] == [rows[0]["cell"]]
