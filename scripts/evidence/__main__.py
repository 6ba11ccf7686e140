"""`python -m scripts.evidence`: write docs/value-of-emd.md from the stored run; `--check` only compares."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from scripts.evidence.run import FOLDER, ROOT, stored_rows
from scripts.evidence.scatter import write_scatter
from scripts.evidence.value_of_emd import ValueOfEMD, value_of_emd
from scripts.page import is_asked_to_compare, keep

PAGE = ROOT / "docs" / "value-of-emd.md"
GROUPS = {"all cells": None, "weights": "weights", "membranes": "membrane"}


def points() -> list[dict[str, Any]]:
    """Stored rows with what `python -m scripts.evidence.outcomes` added, controls left out."""
    stored = json.loads((FOLDER / "outcomes.json").read_text(encoding="utf-8"))
    kept = stored["noise"]["kept"]
    return [
        {**row, **stored["cells"][row["cell"]], "noise_kept_fp": kept}
        for row in stored_rows()
        if row["target"] != "none"
    ]


def explained(rows: list[dict[str, Any]]) -> dict[str, ValueOfEMD]:
    """For all cells, and for those in which the same kind of thing was quantized."""
    return {
        name: value_of_emd([row for row in rows if target in (None, row["target"])]) for name, target in GROUPS.items()
    }


def page() -> str:
    """The page as the stored run says."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), undefined=StrictUndefined, keep_trailing_newline=True
    )
    rows = points()
    noise = json.loads((FOLDER / "outcomes.json").read_text(encoding="utf-8"))["noise"]
    return environment.get_template("page.md.j2").render(
        run=f"../results/{FOLDER.name}", groups=explained(rows), rows=rows, noise=noise
    )


def main() -> int:
    """0 if the page is (now) what the run gives, 1 if `--check` finds it is not."""
    if not is_asked_to_compare():
        write_scatter(FOLDER / "value-of-emd.png", points())
    return keep(PAGE, page(), "python -m scripts.evidence")


if __name__ == "__main__":
    raise SystemExit(main())
