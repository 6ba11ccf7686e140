"""`python -m scripts.findings`: write docs/findings.md and the figures of the first look from its stored run.

`--check` writes nothing and says whether the page is what the run gives.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from scripts.findings import statistics, tables
from scripts.findings.cells import MEMBRANES, WEIGHTS, Cells, emd
from scripts.findings.figures import write_figures
from scripts.findings.levels import grid_use
from scripts.findings.noise import MARK, NAMES, Floors

from isofire.models import pretrained
from isofire.study import read_rows

ROOT = Path(__file__).parents[2]
RUN = "results/2026-11-25_cifar10-first-look"
PAGE = ROOT / "docs" / "findings.md"
BASELINE = "sew_resnet8-cifar10"


def load() -> Cells:
    """The study's rows."""
    return Cells(read_rows(ROOT / RUN / "results.json"))


def load_floors() -> Floors:
    """What python -m scripts.evidence.floors stored."""
    return Floors.read(ROOT / RUN / "floors.json")


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
        mark=MARK,
        replicates=statistics.replicates(ROOT / RUN / "replicates.json"),
        weights=WEIGHTS,
        membranes=MEMBRANES,
        uses={(use.clip, use.bits): use for use in uses},
        emd=emd,
        s=statistics,
        t=tables,
        steps=tables.steps(uses, cells),
        environment=json.loads((ROOT / RUN / "results.json").read_text(encoding="utf-8"))["environment"],
    )


def main() -> int:
    """0 if the page is (now) what the run gives, 1 if `--check` finds it is not."""
    cells, floors = load(), load_floors()
    text = page(cells, floors)
    if "--check" in sys.argv:
        same = PAGE.exists() and PAGE.read_text(encoding="utf-8") == text
        print("docs/findings.md is up to date" if same else "differs: run `python -m scripts.findings`")
        return 0 if same else 1
    PAGE.write_text(text, encoding="utf-8")
    model = pretrained(BASELINE)
    uses = [grid_use(model, clip, bits) for clip in (1.0, 10.0) for bits in (2, 3, 4, 6, 8)]
    row = cells.rows[0]
    sample = f"SEW-ResNet-8 on CIFAR-10, n = {row['n_images']:,} test images, T = {row['T']}, one baseline"
    write_figures(ROOT / RUN, cells, floors, uses, sample)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
