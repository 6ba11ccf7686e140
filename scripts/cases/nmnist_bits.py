"""`python -m scripts.cases.nmnist_bits ROOT`: states of one and two bits over 300 steps, fixed levels beside searched.

ROOT as for `scripts.cases.nmnist`, whose network this is.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from scripts.cases.nmnist import CONVENTION
from scripts.cases.store import ROOT, store

from isofire.data.nmnist import load_nmnist_small
from isofire.nir import read

FOLDER = ROOT / "results" / "2026-11-29_nmnist-bits"
FIXED: dict[str, Any] = {"method": "uniform", "placement": "post_reset", "range": [-1.0, 1.0]}
ABOUT = """The network of [../2026-11-25_nmnist-nir-scnn](../2026-11-25_nmnist-nir-scnn) (300 steps of 1 ms, several
spikes a step, reset by subtraction, no membrane below -1), its states stored in two bits and in one: levels that are
searched by the rates they give (`firing`), levels with the threshold at an edge (`anchored`), and even grids on
[-1, 1]. Weights stay as they are; 100 of the extract's training recordings calibrate, fewer where a layer's inputs
would not fit. Over 300 steps a rounding error is added 300 times, so that what four steps forgive shows here."""


def main(root: Path) -> None:
    """Write the results folder."""
    model = read(root / "n-mnist" / "nir_paper_cnn_sinabs.nir", CONVENTION)
    train, test = (load_nmnist_small(root, split) for split in ("train", "test"))
    membranes: tuple[dict[str, Any], ...] = (
        {**FIXED, "grid": "endpoint"},
        {**FIXED, "grid": "midtread"},  # the only level of one bit would be 0
        {"method": "anchored", "placement": "post_reset"},
        {"method": "firing"},
    )
    store(
        FOLDER,
        "States of one and two bits over 300 steps",
        ABOUT,
        ".venvs/peers/bin/python -m scripts.cases.nmnist_bits ROOT",
        model,
        [
            {"membrane": {**membrane, "bits": bits}}
            for bits in (2, 1)
            for membrane in membranes
            if (bits, membrane.get("grid")) != (1, "midtread")
        ],
        list(train.first(100).batches(10)),
        test,
        labels={"model": "nir_paper_cnn_sinabs", "data": "nmnist-small"},
        libraries=("nir",),
        batch_size=10,
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
