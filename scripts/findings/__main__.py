"""`python -m scripts.findings`: write docs/findings.md and the figures of the first look from its stored run.

`--check` writes nothing and says whether the page is what the run gives.
"""

from __future__ import annotations

import json
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from scripts.evidence.run import BASELINE, FOLDER, ROOT, stored_rows
from scripts.findings import statistics, tables
from scripts.findings.cells import MEMBRANES, WEIGHTS, Cells, emd
from scripts.findings.figures import write_figures
from scripts.findings.levels import grid_use
from scripts.findings.noise import NAMES, Floors
from scripts.page import is_asked_to_compare, keep

from isofire.firing.evidence.outcome import MARKS, Margins
from isofire.models import pretrained

RUN = f"results/{FOLDER.name}"
PAGE = ROOT / "docs" / "findings.md"


def load() -> Cells:
    """The study's rows."""
    return Cells(stored_rows())


def load_floors() -> Floors:
    """What python -m scripts.evidence.floors stored."""
    return Floors.read(FOLDER / "floors.json")


def page(cells: Cells, floors: Floors) -> str:
    """docs/findings.md as the stored run says."""
    model = pretrained(BASELINE)
    uses = [grid_use(model, clip, bits) for clip in (1.0, 10.0) for bits in (2, 3, 4, 6, 8)]
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), undefined=StrictUndefined, keep_trailing_newline=True
    )
    return environment.get_template("page.md.j2").render(
        run=f"../{RUN}",
        about=model.__dict__["about"],
        cells=cells,
        floors=floors,
        kinds=NAMES,
        marks=", ".join(f"{mark} {outcome}" for outcome, mark in MARKS.items()),
        margins=Margins(),
        replicates=statistics.replicates(FOLDER / "replicates.json"),
        weights=WEIGHTS,
        membranes=MEMBRANES,
        uses={(use.clip, use.bits): use for use in uses},
        emd=emd,
        s=statistics,
        t=tables,
        steps=tables.steps(uses, cells),
        environment=json.loads((FOLDER / "results.json").read_text(encoding="utf-8"))["environment"],
    )


def main() -> int:
    """0 if the page is (now) what the run gives, 1 if `--check` finds it is not."""
    cells, floors = load(), load_floors()
    if is_asked_to_compare():
        return keep(PAGE, page(cells, floors), "python -m scripts.findings")
    model = pretrained(BASELINE)
    uses = [grid_use(model, clip, bits) for clip in (1.0, 10.0) for bits in (2, 3, 4, 6, 8)]
    row = cells.rows[0]
    sample = f"SEW-ResNet-8 on CIFAR-10, n = {row['n_images']:,} test images, T = {row['T']}, one baseline"
    write_figures(FOLDER, cells, floors, uses, sample)
    return keep(PAGE, page(cells, floors), "python -m scripts.findings")


if __name__ == "__main__":
    raise SystemExit(main())
