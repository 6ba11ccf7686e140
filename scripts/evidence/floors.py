"""`python -m scripts.evidence.floors SWEEP ROOT MODEL MODEL...`: noise floors of the first look, into `floors.json`.

The sweep is one of configs/studies/cifar10-replicates.toml. The models are full-precision networks that were trained
like the baseline, from other seeds.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.progress import track
from scripts.evidence.run import BASELINE, FOLDER, same_controls, stored_rows

from isofire.data import load
from isofire.files import write_text
from isofire.firing import SpikeCounts, observe
from isofire.firing.evidence.noise_floor import NoiseFloor, control_floor, image_floor, seed_floor
from isofire.firing.record import run_for
from isofire.models import load_model, pretrained
from isofire.study import environment
from isofire.sweep.results import Results

SAME = 1e-6
"""Two machines round differently; the mean rates of one network on the same images differ by no more."""
CONTROLS = {"ptq": "batch norm re-estimated", "qat": "training continued"}


def collect(sweep: Path, root: Path, models: list[Path]) -> dict[str, Any]:
    """All floors, on the images that the cells were compared on."""
    results = Results.open(sweep)
    controls = same_controls([row for row in results.rows if row["target"] == "none"])
    baseline = results.baseline_counts(controls["ptq"][0])
    stored = stored_rows()[0]
    if abs(float(baseline.rates().mean()) - stored["mfr_fp"]) > SAME or baseline.n_images != stored["n_images"]:
        raise SystemExit("the sweep's baseline is not that of the stored cells")
    networks = [_about(pretrained(BASELINE).__dict__["about"], baseline)]
    recordings = [baseline]
    images = load("cifar10", "test", root=root).first(baseline.n_images)
    for path in track(models, description="networks"):
        model, note = load_model(path)
        recordings.append(observe(model, images, batch_size=128, run=run_for(len(images))).counts)
        networks.append(_about(note, recordings[-1]))
    floors = {
        "images": image_floor(baseline),
        **{
            mode: control_floor(baseline, [results.counts(key) for key in keys], about=CONTROLS[mode])
            for mode, keys in controls.items()
        },
        "seeds": seed_floor(recordings),
    }
    return {
        "environment": environment("cpu"),
        "n_images": baseline.n_images,
        "runs": len(controls["ptq"]),
        "networks": networks,
        "floors": {name: _plain(floor) for name, floor in floors.items()},
    }


def _about(note: dict[str, Any], counts: SpikeCounts) -> dict[str, Any]:
    accuracy = {split: {"accuracy": found["accuracy"], "n": found["n"]} for split, found in note["accuracy"].items()}
    return {"seed": note["recipe"]["seed"], "accuracy": accuracy, "mfr": float(counts.rates().mean())}


def _plain(floor: NoiseFloor) -> dict[str, Any]:
    layers = {name: {key: asdict(value) for key, value in found.items()} for name, found in floor.layers.items()}
    overall = {key: asdict(value) for key, value in floor.overall.items()}
    return {"about": floor.about, "overall": overall, "layers": layers}


def main(arguments: list[str]) -> None:
    """Write the file."""
    if len(arguments) < 4:
        raise SystemExit(__doc__)
    sweep, root, *models = map(Path, arguments)
    write_text(FOLDER / "floors.json", json.dumps(collect(sweep, root, models), indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
