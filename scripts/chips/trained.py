"""`python -m scripts.chips.trained [NAME ...] [--root DATA]`: train a network a chip, lower it, measure it.

NAME is of `scripts.chips.networks.NAMES`; without one, all of them. N-MNIST's extract is read from
DATA/n-mnist/nmnist-small.tar. Each network is trained from several seeds; each is stored with what every change of its
chip does alone, beside the noise floor, and with how many numbers differ from its simulator's, in results/ (`FOLDER`).
"""

from __future__ import annotations

import argparse
import json
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from scripts.chips.networks import NAMES, Batches, Trained, events, train
from scripts.chips.oracle import ask
from scripts.evidence.run import ROOT

from isofire.files import write_text
from isofire.firing import Comparison
from isofire.integer import diagnose, lower, steps_of
from isofire.study import environment

FOLDER = ROOT / "results" / "2026-11-28_chips"
KEPT = (
    "emd_weighted",
    "emd_weighted_low",
    "emd_weighted_high",
    "emd_weighted_floor",
    "emd_layer_mean",
    "mfr",
    "mfr_fp",
)


def measure(about: Trained, batches: tuple[Batches, Batches], seed: int, environments: Path) -> dict[str, Any]:
    """Train one network and say what its chip makes of it."""
    torch.manual_seed(seed)
    started, net = time.perf_counter(), about.build()
    loss = train(net, batches[0], about.epochs, about.rate, seed)
    seconds = time.perf_counter() - started
    example, test = batches[0][0][0], batches[1]
    chip = lower(net, example, hardware=about.hardware, approximate=True)
    mapping = chip.mapping
    assert mapping is not None
    steps = steps_of(net, chip, test)
    finding = diagnose(net, chip, steps, example, test, options={"shift_by": "factor", "gain": "keep"})
    agreement = ask(environments, about.simulator, chip, torch.cat([frames for frames, _ in test], 1))
    return {
        "seed": seed, "loss": loss, "train_seconds": round(seconds, 1),
        "images": {"train": sum(len(y) for _, y in batches[0]), "test": steps.everything.n_images},
        "accuracy": {
            "float": steps.everything.accuracy_fp, "fake-quantized": steps.states.accuracy_fp,
            "integer": steps.everything.accuracy,
        },
        "agreement": steps.everything.agreement,
        "steps": {name: _kept(found) for name, found in steps.changes().items()},
        "rates": steps.rates(), "refusals": [str(refusal) for refusal in mapping.refusals],
        "resources": mapping.resources.to_dict(), "finding": None if finding is None else finding.to_dict(),
        "oracle": agreement.to_dict(),
    }  # fmt: skip


def _kept(found: Comparison) -> dict[str, Any]:
    row = found.row()
    return {"accuracy": found.accuracy, **{key: row[key] for key in KEPT}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}")
    parser.add_argument("--root", type=Path, default=Path("data"), help="where n-mnist/nmnist-small.tar is")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--environments", type=Path, default=ROOT / ".venvs", help="the simulators' environments")
    args = parser.parse_args()
    if unknown := [name for name in args.names if name not in NAMES]:
        parser.error(f"NAME must be of {', '.join(NAMES)}, got {unknown[0]!r}")
    torch.set_num_threads(1)
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name in args.names or NAMES:
        about = NAMES[name]
        load = partial(events, root=args.root) if about.load is events else about.load
        batches = load("train"), load("test")
        runs = [measure(about, batches, seed, args.environments) for seed in range(args.seeds)]
        stored = {
            "network": name, "about": about.about, "hardware": about.hardware, "epochs": about.epochs,
            "rate": about.rate, "environment": environment("cpu"), "runs": runs,
        }  # fmt: skip
        write_text(FOLDER / f"{name}.json", json.dumps(stored, indent=1) + "\n")
        for run in runs:
            print(name, run["seed"], run["accuracy"], run["oracle"], f"{run['train_seconds']} s", flush=True)


if __name__ == "__main__":
    main()
