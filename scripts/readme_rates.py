"""`python -m scripts.readme_rates`: README's picture, rates before and after on the digits that come with the package.

Two ways to give the neurons of the packaged network 2-bit states: rounded before they are compared with the threshold,
as is common, and by the preset keep-firing. Counts of rates, scores and verdicts are stored beside the picture; with
`--draw` the picture is drawn anew from them.
"""

from __future__ import annotations

import copy
import json
import sys
from typing import Any

import numpy as np
import torch
from scripts.evidence.run import ROOT

import isofire
from isofire.files import write_text
from isofire.firing.evidence.outcome import MARKS
from isofire.models import pretrained
from isofire.quantization.presets import preset
from isofire.study import environment

NETWORK = "sew_resnet8-digits"
FOLDER = ROOT / "results" / "2026-11-28_digits-rates"
BINS, END = 30, 0.6
SPECS = {
    "2-bit states, rounded before the spike": {
        "membrane": {"method": "uniform", "bits": 2, "range": [-1.0, 1.0], "placement": "pre_fire"}
    },
    "4-bit weights, 2-bit states, keep-firing": preset("keep-firing"),
}


def measure() -> dict[str, Any]:
    """Quantize, compare, and count neurons by rate."""
    torch.set_num_threads(1)
    model = pretrained(NETWORK)
    train, test = (isofire.data.load("digits", split) for split in ("train", "test"))
    networks, before = [], None
    for name, spec in SPECS.items():
        quantized = isofire.quantize_(copy.deepcopy(model), isofire.QuantSpec.from_dict(spec), train)
        found = isofire.compare(model, quantized, test)
        before = found.baseline
        kept, row = found.kept(), found.row()
        assert kept.multiple is not None
        networks.append(
            {
                "name": name,
                "accuracy": found.accuracy,
                "emd": row["emd_weighted"],
                "over_floor": [kept.multiple.estimate, kept.multiple.low, kept.multiple.high],
                "mean_rate": row["mfr"],
                "verdict": f"{MARKS[kept.outcome]} {kept.words}",
                "neurons": _binned(found.quantized),
            }
        )
    assert before is not None
    # what README's ten lines print, up to the mean of all neurons
    lines = found.table(96).split("\nEMD:")[0]
    scores = {"accuracy": found.accuracy_fp, "mean_rate": found.row()["mfr_fp"], "neurons": _binned(before)}
    about = {
        "network": NETWORK,
        "n_images": found.n_images,
        "T": found.T,
        "end": END,
        "environment": environment("cpu"),
    }
    return {**about, "baseline": scores, "networks": networks, "lines": lines}


def draw(stored: dict[str, Any]) -> None:
    """The picture, as PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.4, 2.9), layout="constrained", facecolor="white")
    axes = figure.subplots(1, len(stored["networks"]), sharey=True)
    edges = np.linspace(0, stored["end"], BINS + 1)
    before = stored["baseline"]
    for axis, after in zip(axes, stored["networks"], strict=True):
        axis.stairs(before["neurons"], edges, fill=True, color="#0072B2", alpha=0.3, label="full precision")
        axis.stairs(after["neurons"], edges, color="#D55E00", linewidth=1.6, label="quantized")
        axis.set_yscale("symlog", linthresh=10)
        axis.set_xlim(0, stored["end"])
        axis.set_title(
            f"{after['name']}\naccuracy {100 * before['accuracy']:.1f} → {100 * after['accuracy']:.1f} %, "
            f"mean rate {before['mean_rate']:.3f} → {after['mean_rate']:.3f}",
            fontsize=9.5,
        )
        axis.set_xlabel("firing rate (spikes per neuron per step)", fontsize=8.5)
        axis.tick_params(labelsize=8)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("neurons", fontsize=8.5)
    axes[0].legend(frameon=False, fontsize=8.5, loc="upper right")
    figure.savefig(FOLDER / "rates.png", dpi=170, metadata={"Software": None})


def _binned(counts: isofire.SpikeCounts) -> list[int]:
    rates = np.minimum(counts.rates().numpy(), END - 1e-9)
    return np.histogram(rates, BINS, (0, END))[0].tolist()


def main() -> int:
    """Write the stored values and the picture."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    path = FOLDER / "rates.json"
    if "--draw" not in sys.argv:
        write_text(path, json.dumps(measure(), indent=1) + "\n")
    draw(json.loads(path.read_text(encoding="utf-8")))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
