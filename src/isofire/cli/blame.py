"""`isofire blame`."""

from __future__ import annotations

from pathlib import Path

from isofire.cli.named import ModelChoice
from isofire.cli.options import Machine, Output, QuantChoice
from isofire.cli.quantizing import Quantizing
from isofire.cli.screen import Report
from isofire.study import blame as measure
from isofire.study import load_splits_or_batches


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
    isofire blame fp.safetensors -c config.toml --n 500
    isofire blame --model nets:build --weights weights.safetensors --data nets:load -c spec.toml
    isofire blame sew_resnet8-digits --preset keep-firing --data digits --n 100
    ```

    Parameters
    ----------
    baseline
        The full-precision network: a model.safetensors that isofire wrote, a pretrained one's name, or a FILE.nir; or
        --model names one of yours.
    n
        How many test images; by default all.
    """
    work = Quantizing("blame", baseline, asked, network, machine, n, load_splits_or_batches)
    return work.report(measure(work.model, work.spec, work.train, work.test, **work.how))
