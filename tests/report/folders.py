"""A small sweep folder, written as a sweep writes it, and a view of made-up cells."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch import nn

from isofire.config import DataSettings
from isofire.firing import Observation, SpikeCounts, observe
from isofire.firing.comparison import Comparison
from isofire.firing.evidence.outcome import Margins
from isofire.json_text import to_json_text
from isofire.models import save_model
from isofire.spec import QuantSpec
from isofire.study import environment, load_splits, run_cell, train_baseline
from isofire.study.distributions import distributions
from isofire.sweep.results import Results
from isofire.sweep.store import Store
from isofire.training import Recipe

MODEL = {"builder": "sew_resnet8", "width": 0.25, "T": 3, "in_channels": 1, "num_classes": 10}
QAT = Recipe(epochs=1, lr=0.02, batch_size=32, warmup_epochs=0.0)
HOSTILE = "<script>alert(1)</script>"


def uniform(bits: int, span: float) -> QuantSpec:
    return QuantSpec(weights={"method": "uniform", "bits": bits, "range": (-span, span)})


def membrane(bits: int, low: float, placement: str) -> QuantSpec:
    return QuantSpec(membrane={"bits": bits, "range": (low, 1.0), "signed": low < 0, "placement": placement})


CELLS: list[tuple[str, QuantSpec | None]] = [
    ("ptq", None),
    *(("ptq", uniform(bits, span)) for span in (1.0, 10.0) for bits in (2, 4, 8)),
    *(("ptq", QuantSpec(weights={"method": "lqnet", "bits": bits})) for bits in (2, 4)),
    *(
        ("ptq", membrane(bits, low, place))
        for low, place in ((0.0, "pre_fire"), (-1.0, "post_reset"))
        for bits in (2, 4)
    ),
    ("qat", None),
    *(("qat", QuantSpec(weights={"method": "lsq", "bits": bits})) for bits in (2, 4)),
]


def write_sweep(
    folder: Path,
    cells: list[tuple[str, QuantSpec | None]],
    seeds: tuple[int, ...] = (0, 1),
    name: str = "digits, small",
) -> Path:
    """Run the cells on few digits and write DIR as a sweep does; one cell more failed and one is pending."""
    splits = load_splits(DataSettings(name="digits", train_images=320, test_images=120))
    batch, _ = next(iter(splits.train.batches(16)))
    about, store = environment(), Store(folder)
    plan: dict[str, Any] = {
        "version": 1, "name": name, "config": {"name": name, "seeds": seeds, "data": {"name": "digits"}},
        "environment": about, "baselines": [], "cells": [],
    }  # fmt: skip
    for seed in seeds:
        recipe = Recipe(epochs=4, lr=0.1, batch_size=16, warmup_epochs=0.5, seed=seed)
        found = train_baseline(MODEL, splits, recipe, device="cpu")
        assert found is not None
        observed = observe(found.model, splits.test, device="cpu")
        base = f"base{seed}"
        plan["baselines"].append({"key": base, "name": "sew8", "seed": seed})
        document = {"name": "sew8", "seed": seed, "model": MODEL, "data": {"name": "digits"}, "environment": about}
        document |= {
            "accuracy": {"valid": None, "test": found.to_dict()["test"]},
            "history": found.to_dict()["history"],
        }
        store.publish("baselines", base, _baseline(document, found.model, observed))
        for number, (mode, spec) in enumerate(cells):
            key = f"s{seed}c{number:02d}"
            cell = run_cell(
                found.model, spec, mode=mode, train_set=splits.train, test_set=splits.test, device="cpu", seed=seed,
                recipe=QAT if mode == "qat" else None, calibration_images=64, observed=observed,
            )  # fmt: skip
            plan["cells"].append({"key": key, "title": f"{mode} {number}", "baseline": base, "seed": seed, "mode": mode,
                                  "spec": None if spec is None else spec.to_dict()})  # fmt: skip
            documents = {
                "row.json": {**cell.row, "cell": key, "baseline": "sew8"},
                "comparison.json": cell.comparison.to_dict(),
                "distributions.json": distributions(found.model, cell.model, batch),
                "history.json": msgspec.to_builtins(cell.history),
                "environment.json": about,
            }
            store.publish("cells", key, _cell(documents, cell.comparison.quantized))
    store.fail("bad", {"title": "ptq that fails", "reason": "ran out of memory", "type": "OutOfMemoryError"})
    for key in ("bad", "late"):
        plan["cells"].append({"key": key, "title": key, "baseline": "base0", "seed": 0, "mode": "ptq", "spec": None})
    (folder / "plan.json").write_text(to_json_text(plan))
    return folder


def _baseline(document: dict[str, Any], model: nn.Module, observed: Observation) -> Callable[[Path], None]:
    def write(part: Path) -> None:
        (part / "baseline.json").write_text(to_json_text(document))
        save_model(part / "model.safetensors", model, {})
        observed.save(part)

    return write


def _cell(documents: dict[str, Any], counts: SpikeCounts) -> Callable[[Path], None]:
    def write(part: Path) -> None:
        for name, value in documents.items():
            (part / name).write_text(to_json_text(value))
        counts.save(part / "counts.safetensors")

    return write


class FolderView(Results):
    """Results of a folder; `rename` gives layers other names."""

    def __init__(self, folder: Path, rename: dict[str, str] | None = None) -> None:
        super().__init__(folder, json.loads((folder / "plan.json").read_text()))
        self.renames = rename or {}

    def layers(self, cell_key: str) -> list[dict[str, Any]]:
        return [{**layer, "layer": self._name(layer["layer"])} for layer in super().layers(cell_key)]

    def counts(self, cell_key: str) -> SpikeCounts:
        return self._renamed(super().counts(cell_key))

    def baseline_counts(self, cell_key: str) -> SpikeCounts:
        return self._renamed(super().baseline_counts(cell_key))

    def distributions(self, cell_key: str) -> list[dict[str, Any]]:
        return [{**entry, "module": self._name(entry["module"])} for entry in super().distributions(cell_key)]

    def _name(self, name: str) -> str:
        return self.renames.get(name, name)

    def _renamed(self, found: SpikeCounts) -> SpikeCounts:
        counts = {self._name(name): tensor for name, tensor in found.counts.items()}
        return SpikeCounts(counts, found.images_per_block, found.steps)


class MadeView:
    """A view of made-up cells, for pages of any size."""

    margins = Margins()

    def __init__(self, rows: list[dict[str, Any]], layers: int = 3, neurons: int = 400, bits: int = 4) -> None:
        generator = torch.Generator().manual_seed(0)
        self.rows, self.failed = rows, []
        self.damaged: dict[str, str] = {}
        self.folder = Path("made")
        cells = [{"key": row["cell"], "title": row["cell"], "baseline": "b", "seed": row["seed"], "mode": row["mode"],
                  "spec": {"weights": {"method": row["method"], "bits": row["bits"]}}} for row in rows]  # fmt: skip
        self.plan = {"version": 1, "name": "made", "config": {}, "environment": {"torch": "2"}, "cells": cells,
                     "baselines": [{"key": "b", "name": "sew8", "seed": 0}]}  # fmt: skip
        names = [f"layer{i}.sn" for i in range(layers)]
        self._base = self._draw(names, neurons, generator)
        self._cells = {row["cell"]: self._draw(names, neurons, generator) for row in rows}
        levels = torch.linspace(-1, 1, 2**bits).tolist()
        self._values = [
            {"module": name, "target": "weights", "bits": bits, "edges": torch.linspace(-1, 1, 65).tolist(),
             "counts": torch.randint(0, 900, (64,), generator=generator).tolist(), "levels": levels, "threshold": None,
             "note": "each channel divided by its highest level"}
            for name in names
        ]  # fmt: skip

    def _draw(self, names: list[str], neurons: int, generator: torch.Generator) -> SpikeCounts:
        rates = torch.rand(len(names), neurons, generator=generator) ** 3
        counts = {name: (rate * 1000).int().reshape(1, -1) for name, rate in zip(names, rates, strict=True)}
        return SpikeCounts(counts, torch.tensor([250]), 4)

    def layers(self, cell_key: str) -> list[dict[str, Any]]:
        both = Comparison.of(self._base, self._cells[cell_key], accuracy=0.5, accuracy_fp=0.5, agreement=1.0)
        return [layer.to_dict() for layer in both.layers]

    def counts(self, cell_key: str) -> SpikeCounts:
        return self._cells[cell_key]

    def baseline_counts(self, cell_key: str) -> SpikeCounts:
        return self._base

    def baseline(self, cell_key: str) -> dict[str, Any]:
        return {"name": "sew8", "seed": 0}

    def distributions(self, cell_key: str) -> list[dict[str, Any]]:
        return self._values


def row(cell: str = "a", **changes: Any) -> dict[str, Any]:
    """A made-up row."""
    found = {
        "cell": cell, "baseline": "b", "model": "sew_resnet8", "data": "digits", "target": "weights",
        "method": "uniform",
        "bits": 4, "range": "[-1, 1]", "granularity": "channel", "placement": None, "options": None, "mode": "ptq",
        "seed": 0, "n_images": 4000, "T": 4, "accuracy": 0.9, "accuracy_fp": 0.9, "agreement": 0.95, "mfr": 0.1,
        "mfr_fp": 0.11, "dead_00": 0.1, "dead_01": 0.2, "dead_05": 0.3, "emd_layer_mean": 0.01, "emd_weighted": 0.01,
        "emd_pooled": 0.01, "emd_max": 0.02, "paired_mae": 0.02, "shift": 0.005, "shape": 0.005, "reshuffle": 0.01,
        "spearman": 0.99, "dead_00_fp": 0.1, "dead_01_fp": 0.2, "dead_05_fp": 0.28, "epochs": 0,
        "calibration_images": 64, "seconds": 1.0, "spec": f"spec of {cell}",
    }  # fmt: skip
    found |= changes
    if "emd_weighted" not in changes:
        found["emd_weighted"] = found["emd_layer_mean"]
    # intervals of a twentieth to either side, and two images lost and won beside those that accuracy tells
    net = round((found["accuracy_fp"] - found["accuracy"]) * found["n_images"])
    known = {"images_lost": max(net, 0) + 2, "images_won": max(-net, 0) + 2}
    if found["emd_layer_mean"] is not None:
        known |= {"emd_low": 0.95 * found["emd_layer_mean"], "emd_high": 1.05 * found["emd_layer_mean"]}
    return known | found


def control(cell: str = "control", **changes: Any) -> dict[str, Any]:
    labels = {
        "target": "none",
        "method": "BN re-estimated",
        "bits": 32,
        "range": None,
        "granularity": None,
        "spec": None,
    }
    return row(cell, **(labels | {"emd_layer_mean": 0.005} | changes))
