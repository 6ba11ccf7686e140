"""`python -m scripts.keep_firing.store SWEEP`: keep what the page needs of a finished sweep.

Rows, plan and journal as they are; of each cell's comparison the decisions alone (images lost and won, and the interval
of the accuracy lost), because the rest is 90 KB a cell.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

from scripts.keep_firing.run import FOLDER

from isofire.files import write_text
from isofire.study import read_rows

KEPT = ("results.csv", "results.json", "plan.json", "journal.jsonl")


def store(sweep: Path, folder: Path) -> None:
    """Copy the study's files and gather its decisions.

    Raises
    ------
    SystemExit
        If cells of the plan are missing.
    """
    rows = list(read_rows(sweep / "results.json"))
    planned = len(json.loads((sweep / "plan.json").read_text(encoding="utf-8"))["cells"])
    if len(rows) != planned:
        raise SystemExit(f"{sweep} holds {len(rows)} of {planned} cells; run the sweep to its end first")
    folder.mkdir(parents=True, exist_ok=True)
    for name in KEPT:
        shutil.copyfile(sweep / name, folder / name)
    decisions = {
        row["cell"]: json.loads((sweep / "cells" / row["cell"] / "comparison.json").read_text())["decisions"]
        for row in rows
    }
    write_text(folder / "decisions.json", json.dumps(decisions, indent=1) + "\n")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    store(Path(sys.argv[1]), FOLDER)
