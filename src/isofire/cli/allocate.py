"""`isofire allocate`."""

from __future__ import annotations

from pathlib import Path

from isofire.cli.named import ModelChoice
from isofire.cli.options import Machine, Output, QuantChoice
from isofire.cli.quantizing import Quantizing
from isofire.cli.screen import Report
from isofire.study import load_splits
from isofire.study.allocate import Budget
from isofire.study.allocate import allocate as choose

_KIB = 1024.0


def allocate(
    baseline: Path | None = None,
    /,
    *,
    asked: QuantChoice | None = None,
    network: ModelChoice | None = None,
    bits: tuple[int, ...] = (1, 2, 4, 8),
    weight_kib: float | None = None,
    state_kib: float | None = None,
    total_kib: float | None = None,
    n: int | None = None,
    machine: Machine | None = None,
    output: Output | None = None,
) -> Report:
    """Give each layer bits under a budget, so that firing drifts least; then make that network and measure it.

    Needs data, by --data or the table [data], and the table [quant] or --preset, which says which layers are quantized
    and how; --bits between what to choose. Of q layers and b numbers of bits, q b networks are made to see what each
    does alone, on training images; the choice is exact (an integer program). The network is compared on test images,
    beside one of equal bits everywhere. With --json the spec, for `quantize`, is in it.

    ```
    isofire allocate FP.safetensors -c CONFIG.toml --state-kib 20 --bits 1 --bits 2 --bits 4 --n 500
    isofire allocate sew_resnet8-cifar10 -c CONFIG.toml --data cifar10 --root DIR --total-kib 40
    isofire allocate --model nets:build --data nets:load -c CONFIG.toml --weight-kib 10
    ```

    Parameters
    ----------
    baseline
        The full-precision network: a model.safetensors that isofire wrote, a pretrained one's name, or a FILE.nir; or
        --model names one of yours.
    bits
        Numbers of bits to choose from.
    weight_kib, state_kib, total_kib
        What weights, membrane states (of one image), or both may take, in KiB.
    n
        How many images to choose on and to compare on; by default all test images.
    """

    def bytes_of(kib: float | None) -> float | None:
        return None if kib is None else kib * _KIB

    budget = Budget(weight_bytes=bytes_of(weight_kib), state_bytes=bytes_of(state_kib), total_bytes=bytes_of(total_kib))
    work = Quantizing("allocate", baseline, asked, network, machine, n, load_splits)
    return work.report(choose(work.model, work.spec, bits, budget, work.train, work.test, **work.how))
