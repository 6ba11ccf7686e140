"""`python -m scripts.evidence.outcomes SWEEP ROOT`: what a row does not hold of each cell of the first look.

Peak events from the stored counts, and the share of decisions that stand noise on the input, by running every cell's
network again. Goes on where it was cut off; writes `outcomes.json` into the stored run.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.progress import track
from scripts.evidence.robustness import decisions_kept, with_noise
from scripts.evidence.run import FOLDER, same_rows
from scripts.evidence.value_of_emd import measured
from torch import nn

from isofire.data import load
from isofire.files import write_text
from isofire.models import load_model
from isofire.study import environment
from isofire.sweep.results import Results

SIGMA, IMAGES, SEED = 0.05, 1000, 0


def collect(sweep: Path, root: Path, path: Path) -> None:
    """Measure the cells that `path` does not hold yet."""
    results = Results.open(sweep)
    rows = same_rows(results.rows)
    clean = load("cifar10", "test", root=root).first(IMAGES)
    noisy = with_noise(clean, SIGMA, SEED)

    def kept(model: nn.Module) -> float:
        return decisions_kept(model, clean, noisy)

    found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else _head(sweep, results, kept)
    for row in track([row for row in rows if row["cell"] not in found["cells"]], description="cells"):
        found["cells"][row["cell"]] = _cell(sweep, results, row, kept)
        write_text(path, json.dumps(found, indent=1) + "\n")


def _head(sweep: Path, results: Results, kept: Callable[[nn.Module], float]) -> dict[str, Any]:
    (baseline,) = results.plan["baselines"]
    model, _ = load_model(sweep / "baselines" / baseline["key"] / "model.safetensors")
    noise = {"sigma": SIGMA, "images": IMAGES, "seed": SEED, "kept": kept(model)}
    return {"environment": environment("cpu"), "noise": noise, "cells": {}}


def _cell(sweep: Path, results: Results, row: dict[str, Any], kept: Callable[[nn.Module], float]) -> dict[str, float]:
    key = row["cell"]
    peaks = measured(row, results.baseline_counts(key), results.counts(key))
    model, _ = load_model(sweep / "cells" / key / "model.safetensors")
    return {**{name: peaks[name] for name in ("peak_events", "peak_events_fp")}, "noise_kept": kept(model)}


if __name__ == "__main__":
    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    collect(Path(sys.argv[1]), Path(sys.argv[2]), FOLDER / "outcomes.json")
