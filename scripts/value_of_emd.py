"""`python -m scripts.value_of_emd SWEEP [OUT]`: what drift measures explain of the outcomes of a sweep."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from isofire.errors import ModelError
from isofire.files import write_text
from isofire.firing.cost import reach
from isofire.firing.cost.reach import Reach
from isofire.firing.counts import SpikeCounts
from isofire.models import build
from isofire.study import ValueOfEMD, measured, value_of_emd
from isofire.study.rows import to_json_text
from isofire.sweep.results import Results


def explained(sweep: Path) -> ValueOfEMD:
    """Over all finished cells of a sweep's folder."""
    results, known = Results.open(sweep), {}
    rows = []
    for row in results.rows:
        key = row["cell"]
        before = results.baseline_counts(key)
        name = row["baseline"], row["seed"]
        if row.get("synops") is None and name not in known:
            known[name] = _reach(results.baseline(key)["model"], before)
        rows.append(measured(row, before, results.counts(key), known.get(name)))
    return value_of_emd(rows)


def _reach(config: dict | None, counts: SpikeCounts) -> Reach | None:
    """Of a network of isofire's builders, whose first layer of neurons has the images' height and width."""
    if config is None:
        return None
    shape = counts.shape(counts.layers[0])
    try:
        return reach(build(config), torch.zeros(2, config["in_channels"], *shape[1:]))
    except ModelError:
        return None


def main(arguments: list[str]) -> None:
    """Print the table; with OUT also write `value-of-emd.md` and `value-of-emd.json` there."""
    if not 1 <= len(arguments) <= 2:
        raise SystemExit(__doc__)
    found = explained(Path(arguments[0]))
    print(found.table())
    if len(arguments) == 2:
        out = Path(arguments[1])
        write_text(out / "value-of-emd.md", found.table() + "\n")
        write_text(out / "value-of-emd.json", to_json_text(found.to_dict()))


if __name__ == "__main__":
    main(sys.argv[1:])
