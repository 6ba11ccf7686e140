"""`python -m scripts.look_ups.count ROOT`: spikes of fast networks beside their definition and the float32 path.

ROOT holds CIFAR-10. Minutes on one core.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import isofire
from isofire.data import load
from isofire.files import write_text
from isofire.json_text import to_json_text
from isofire.models import pretrained
from isofire.neurons import Neuron
from isofire.running import hooked
from isofire.study import environment

FILE = Path(__file__).parents[2] / "results" / "2026-11-28_look-ups" / "spikes.json"
SETTINGS: tuple[tuple[str, dict[str, Any], int], ...] = (
    ("4-bit weights", {"weights": {"method": "uniform", "bits": 4}}, 1024),
    (
        "4-bit weights, 4-bit membranes (`post_reset`)",
        {
            "weights": {"method": "uniform", "bits": 4},
            "membrane": {"method": "uniform", "placement": "post_reset", "bits": 4},
        },
        512,
    ),
    ("2-bit weights", {"weights": {"method": "uniform", "bits": 2}}, 256),
    ("8-bit weights", {"weights": {"method": "uniform", "bits": 8}}, 256),
)
CALIBRATION, BATCH = 512, 128


def spikes_of(model: nn.Module, inputs: Tensor) -> tuple[list[Tensor], Tensor]:
    """Spikes of every layer of neurons [T, N, ...], and the predicted classes [N]."""
    kept: list[Tensor] = []
    neurons = [module for module in model.modules() if isinstance(module, Neuron)]
    handles = (neuron.register_forward_hook(lambda _m, _i, spikes: kept.append(spikes + 0.0)) for neuron in neurons)
    with hooked(handles), torch.no_grad():
        logits = model(inputs)
    return kept, (logits.mean(0) if logits.ndim == 3 else logits).argmax(1)


def definition(quantized: nn.Module) -> nn.Module:
    """Sums of codes by torch, neurons step by step."""
    made = isofire.fast(quantized, path="torch")
    for module in made.modules():
        if isinstance(module, Neuron):
            module.backend = "reference"
    return made


def count(spec: dict[str, Any], images: int, root: str) -> dict[str, int]:
    """Neuron-steps, and how many differ from the definition and from the fake-quantized network."""
    train, test = (load("cifar10", split, root=root) for split in ("train", "test"))
    calibration = train.first(CALIBRATION)
    quantized = isofire.quantize_(pretrained("sew_resnet8-cifar10"), isofire.QuantSpec.from_dict(spec), calibration)
    quick, defined = isofire.fast(quantized), definition(quantized)
    found = dict.fromkeys(("images", "neuron_steps", "definition", "float32", "first_layer", "in_images", "classes"), 0)
    for inputs, _ in test.first(images).batches(BATCH):
        (mine, classes), (due, _), (floats, others) = (spikes_of(net, inputs) for net in (quick, defined, quantized))
        differs = [(a != b).flatten(2) for a, b in zip(mine, floats, strict=True)]
        found["images"] += len(inputs)
        found["neuron_steps"] += sum(a.numel() for a in mine)
        found["definition"] += sum(int((a != b).sum()) for a, b in zip(mine, due, strict=True))
        found["float32"] += sum(int(part.sum()) for part in differs)
        found["first_layer"] += int(differs[0].sum())
        found["in_images"] += int(torch.stack([part.any(2).any(0) for part in differs]).any(0).sum())
        found["classes"] += int((classes != others).sum())
    return found


def main(root: str) -> None:
    """Count and store."""
    torch.set_num_threads(1)
    rows = []
    for name, spec, images in SETTINGS:
        rows.append({"name": name, "spec": spec, "calibration": CALIBRATION, **count(spec, images, root)})
        print(rows[-1], file=sys.stderr, flush=True)
    FILE.parent.mkdir(exist_ok=True)
    document = {"version": 1, "environment": environment(), "rows": rows}
    write_text(FILE, to_json_text(document))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    main(sys.argv[1])
