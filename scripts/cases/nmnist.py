"""`python -m scripts.cases.nmnist ROOT`: the NIR paper's trained network for N-MNIST, quantized after training.

ROOT holds n-mnist/nmnist-small.tar and n-mnist/nir_paper_cnn_sinabs.nir (paper/02_cnn of neuromorphs/NIR).
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from scripts.cases.store import ROOT, store

from isofire.data.nmnist import load_nmnist_small
from isofire.nir import Convention, read

FOLDER = ROOT / "results" / "2026-11-25_nmnist-nir-scnn"
BITS = (8, 4, 3, 2)
CONVENTION = Convention(reset="subtract", several=True, v_floor=-1.0)
"""The network's own: Sinabs' IAF fires several spikes a step, subtracts the threshold, and stops at -1."""
POST: dict[str, Any] = {"placement": "post_reset", "range": [-1.0, 1.0]}
WEIGHTS: tuple[dict[str, Any], ...] = ({"method": "uniform", "range": "mse"}, {"method": "lsq"})
MEMBRANES: tuple[dict[str, Any], ...] = (
    {**POST, "grid": "endpoint"},
    {**POST, "grid": "midtread"},
    {"placement": "pre_fire", "range": "minmax", "grid": "endpoint"},
    {"placement": "pre_fire", "range": "minmax", "grid": "midtread"},
)
ABOUT = """The spiking network that the NIR paper trained for N-MNIST (three convolutions and two linear layers of
integrate-and-fire neurons), which nobody of this project trained, on the 100 test recordings of SLAYER's extract: 300
steps of 1 ms, events counted into frames 2 x 34 x 34. Its neurons fire several spikes a step, are reset by subtraction
and keep no membrane below -1. Post-training quantization of every layer, the first and the last included; ranges
estimated from 100 of the extract's training recordings. 100 recordings decide one percent each; the intervals in
[drift.md](drift.md) say how much of a drift they can show."""


def main(root: Path) -> None:
    """Write the results folder."""
    model = read(root / "n-mnist" / "nir_paper_cnn_sinabs.nir", CONVENTION)
    train, test = (load_nmnist_small(root, split) for split in ("train", "test"))
    cells: list[dict[str, Any]] = [{"weights": {**w, "bits": b}} for w in WEIGHTS for b in BITS]
    cells += [{"membrane": {**m, "bits": b}} for m in MEMBRANES for b in BITS]
    cells += [{"weights": {**WEIGHTS[1], "bits": b}, "membrane": {**MEMBRANES[1], "bits": b}} for b in BITS]
    store(
        FOLDER,
        "N-MNIST, a trained network from a NIR file",
        ABOUT,
        ".venvs/peers/bin/python -m scripts.cases.nmnist ROOT",
        model,
        cells,
        train.first(100),
        test,
        labels={"model": "nir_paper_cnn_sinabs", "data": "nmnist-small"},
        libraries=("nir",),
        batch_size=10,
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
