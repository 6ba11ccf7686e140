"""A stored case: one network, quantized in several ways after training, compared and put into a results folder."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

import isofire
from isofire.adapters import copy_of
from isofire.files import write_text
from isofire.firing import compare, observe
from isofire.quantization import labels_of
from isofire.study import environment, markdown_table, write_rows
from isofire.study.environment import version

ROOT = Path(__file__).parents[2]
Setting = Mapping[str, Any]
ALL = {"first_layer": "quantize", "last_layer": "quantize"}


def store(
    folder: Path,
    title: str,
    about: str,
    command: str,
    model: nn.Module,
    cells: list[Setting],
    calibration: Any,
    data: Any,
    *,
    labels: Mapping[str, str],
    libraries: tuple[str, ...],
    batch_size: int = 64,
    calibration_images: int = 256,
) -> None:
    """Quantize a copy for each cell, compare, and write results.json/.csv, drift.md and README.md."""
    torch.set_num_threads(1)
    # few images: each its own run, so that there are enough blocks for intervals
    options: dict[str, Any] = {"batch_size": batch_size, "run": 1}
    observed = observe(model, data, **options)
    itself = compare(observed, copy_of(model), data, **options)
    rows, drift = [], [f"# Drift by layer: {title}\n", _table("full precision", itself.table())]
    for values in cells:
        spec, began = isofire.QuantSpec.from_dict({**ALL, **values}), time.time()
        quantized = isofire.quantize_(copy_of(model), spec, calibration, max_images=calibration_images)
        found = compare(observed, quantized, data, **options)
        rows.append(found.row(**labels, **labels_of(spec), mode="ptq"))
        drift.append(_table(_name(values), found.table()))
        print(f"{_name(values)}: {found.accuracy:.4f} ({time.time() - began:.0f} s)", file=sys.stderr, flush=True)
    about_run = {**environment(), **{library: version(library) for library in libraries}}
    write_rows(folder, rows, about_run)
    write_text(folder / "drift.md", "\n".join(drift))
    made = "Made by (`make test-adapters` makes the environment)"
    parts = (f"# {title}", about, made, f"    {command}", markdown_table(rows).strip())
    write_text(folder / "README.md", "\n\n".join((*parts, "Layer by layer: [drift.md](drift.md).\n")))


def _table(name: str, text: str) -> str:
    return f"## {name}\n\n```\n{text}\n```\n"


def _name(values: Setting) -> str:
    parts = []
    for target in ("weights", "membrane"):
        if setting := values.get(target):
            said = " ".join(f"{key} {value}" for key, value in setting.items() if key not in ("bits", "method"))
            parts.append(
                f"{target} {setting.get('method', 'uniform')}, {setting['bits']} bits{', ' * bool(said)}{said}"
            )
    return "; ".join(parts)
