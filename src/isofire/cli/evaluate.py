"""`isofire eval`."""

from __future__ import annotations

from pathlib import Path

import msgspec

from isofire.cli.options import DataChoice, Machine, Output
from isofire.cli.screen import Report
from isofire.models import open_model
from isofire.training import evaluate as measure


def evaluate(
    model: Path,
    /,
    *,
    batch_size: int = 256,
    choice: DataChoice | None = None,
    machine: Machine | None = None,
    output: Output | None = None,
) -> Report:
    """Measure the accuracy of a network, quantized or not.

    ```
    isofire eval runs/fp/model.safetensors --data digits
    isofire eval MODEL.safetensors --data cifar10 --root DIR
    isofire eval MODEL.safetensors --config CONFIG.toml --split valid
    ```

    Parameters
    ----------
    model
        A file that isofire wrote (model.safetensors).
    batch_size
        Images at once.
    """
    place = (machine or Machine()).claim()
    network, _ = open_model(model)
    data = (choice or DataChoice()).load()
    found = measure(network, data, place, batch_size)
    text = f"accuracy {100 * found.accuracy:.2f} %, loss {found.loss:.4f} (n = {found.n:,}, {data.name} {data.split})"
    return Report({**msgspec.to_builtins(found), "data": data.name, "split": data.split}, text)
