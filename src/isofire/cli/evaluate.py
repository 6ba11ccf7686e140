"""`isofire eval`."""

from __future__ import annotations

import msgspec

from isofire.cli.named import ModelChoice, Network
from isofire.cli.options import BatchSize, DataChoice, Machine, Output
from isofire.cli.screen import Report
from isofire.firing import observe
from isofire.models import NamedData
from isofire.training import evaluate as measure


def evaluate(
    model: Network = None,
    /,
    *,
    batch_size: BatchSize = 256,
    network: ModelChoice | None = None,
    choice: DataChoice | None = None,
    machine: Machine | None = None,
    output: Output | None = None,
) -> Report:
    """Measure the accuracy of a network, quantized or not, with its loss, or its mean rate on data of your own.

    ```
    isofire eval fp.safetensors --config config.toml --split valid
    isofire eval --model nets:build --weights weights.safetensors --data nets:load
    isofire eval sew_resnet8-digits --data digits
    ```
    """
    place = (machine or Machine()).claim()
    opened, _ = (network or ModelChoice()).open(model)
    data = (choice or DataChoice()).load()
    if isinstance(data, NamedData):
        seen = observe(opened, data, batch_size=batch_size, device=place)
        rate = float(seen.counts.rates().mean())
        told = {"accuracy": seen.accuracy, "mfr": rate, "n": seen.counts.n_images, "data": data.name}
        text = f"accuracy {100 * seen.accuracy:.2f} %, rate {rate:.4f} (n = {seen.counts.n_images:,}, {data.name})"
        return Report({**told, "split": data.split}, text)
    found = measure(opened, data, place, batch_size)
    text = f"accuracy {100 * found.accuracy:.2f} %, loss {found.loss:.4f} (n = {found.n:,}, {data.name} {data.split})"
    return Report({**msgspec.to_builtins(found), "data": data.name, "split": data.split}, text)
