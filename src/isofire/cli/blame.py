"""`isofire blame`."""

from __future__ import annotations

import sys
from pathlib import Path

from isofire.cli.named import ModelChoice
from isofire.cli.options import Machine, Output, QuantChoice, first, refuse_processes
from isofire.cli.progress import count_networks
from isofire.cli.screen import Report
from isofire.study import blame as measure
from isofire.study import environment, load_splits_or_batches


def blame(
    baseline: Path | None = None,
    /,
    *,
    asked: QuantChoice | None = None,
    network: ModelChoice | None = None,
    n: int | None = None,
    machine: Machine | None = None,
    output: Output | None = None,
) -> Report:
    """Show which layer's quantizer makes firing drift: each alone and all but each, after training.

    Needs data, by --data or the table [data], and what is quantized, by --preset or the table [quant]. Of q quantized
    modules it makes and compares 2 q + 2 networks, so choose few images with --n first. With --json it also gives the
    EMD of every layer of neurons for each of them.

    ```
    isofire blame runs/fp/model.safetensors -c configs/digits-demo.toml --n 500
    isofire blame sew_resnet8-cifar10 --preset keep-firing --data cifar10 --root DIR --n 200
    isofire blame --model nets:build --weights FILE.safetensors --data nets:load -c CONFIG.toml
    ```

    Parameters
    ----------
    baseline
        The full-precision network: a model.safetensors that isofire wrote, a pretrained one's name, or a FILE.nir; or
        --model names one of yours.
    n
        How many test images; by default all.
    """
    refuse_processes("blame")
    settings = (asked or QuantChoice()).read("data", "quant")
    assert settings.data is not None
    assert settings.quant is not None
    place = (machine or Machine()).claim()
    model, _ = (network or ModelChoice()).open_baseline(baseline)
    splits = load_splits_or_batches(settings.data)
    images = first(splits.test, n)

    found = measure(
        model,
        settings.quant,
        splits.train,
        images,
        seed=settings.seed,
        calibration_images=settings.calibration.images,
        device=place,
        on_step=count_networks if sys.stderr.isatty() else None,
    )
    return Report({**found.to_dict(), "environment": environment(place)}, found.table())
