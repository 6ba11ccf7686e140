"""`python -m scripts.keep_firing.store STUDY SWEEP`: keep what the page needs of a finished sweep.

Rows, plan and journal as they are, with DATA for the data's folder; of each cell the commit that it was run on and,
because all of a comparison is 90 KB, its decisions alone (images lost and won, the interval of the accuracy lost).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from scripts.keep_firing.studies import STUDIES

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
    plan = json.loads((sweep / "plan.json").read_text(encoding="utf-8"))
    if len(rows) != len(plan["cells"]):
        raise SystemExit(f"{sweep} holds {len(rows)} of {len(plan['cells'])} cells; run the sweep to its end first")
    root = plan["config"]["data"].get("root")
    folder.mkdir(parents=True, exist_ok=True)
    for name in KEPT:
        text = (sweep / name).read_text(encoding="utf-8")
        write_text(folder / name, text.replace(root, "DATA") if root else text)
    decisions = {}
    for row in rows:
        cell = sweep / "cells" / row["cell"]
        environment = json.loads((cell / "environment.json").read_text(encoding="utf-8"))
        comparison = json.loads((cell / "comparison.json").read_text(encoding="utf-8"))
        decisions[row["cell"]] = {"commit": environment["git"]["commit"], **comparison["decisions"]}
    write_text(folder / "decisions.json", json.dumps(decisions, indent=1) + "\n")


if __name__ == "__main__":
    folders = {study.config: study.folder for study in STUDIES}
    if len(sys.argv) != 3 or sys.argv[1] not in folders:
        raise SystemExit(f"{__doc__}\nSTUDY is one of {', '.join(folders)}")
    store(Path(sys.argv[2]), folders[sys.argv[1]])
