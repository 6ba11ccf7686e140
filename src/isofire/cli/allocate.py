"""`isofire allocate`."""

from __future__ import annotations

import sys
from pathlib import Path

from isofire.cli.config import read_config, require
from isofire.cli.options import AllowCode, ConfigFile, Machine, Output, Seed, Settings, refuse_processes
from isofire.cli.screen import Report
from isofire.errors import ModelError, SpecError
from isofire.models import open_model
from isofire.quantization import spec_of
from isofire.study import environment, load_splits
from isofire.study.allocate import Budget
from isofire.study.allocate import allocate as choose

_KIB = 1024.0


def allocate(
    baseline: Path,
    /,
    *,
    config: ConfigFile,
    set: Settings = (),
    allow_code: AllowCode = False,
    bits: tuple[int, ...] = (1, 2, 4, 8),
    weight_kib: float | None = None,
    state_kib: float | None = None,
    total_kib: float | None = None,
    n: int | None = None,
    seed: Seed = None,
    machine: Machine | None = None,
    output: Output | None = None,
) -> Report:
    """Give each layer bits under a budget, so that firing drifts least; then make that network and measure it.

    Needs the tables [data] and [quant]: [quant] says which layers are quantized and how, --bits between what to choose.
    Of q layers and b numbers of bits, q b networks are made to see what each does alone, on training images; the choice
    is exact (an integer program). The network is compared on test images, beside one of equal bits everywhere. With
    --json the spec, for `quantize`, is in it.

    ```
    isofire allocate FP.safetensors -c CONFIG.toml --state-kib 20 --bits 1 --bits 2 --bits 4 --n 500
    ```

    Parameters
    ----------
    baseline
        The full-precision network, a model.safetensors that isofire wrote, or the name of a pretrained one.
    bits
        Numbers of bits to choose from.
    weight_kib, state_kib, total_kib
        What weights, membrane states (of one image), or both may take, in KiB.
    n
        How many images to choose on and to compare on; by default all test images.
    """
    refuse_processes("allocate")

    def bytes_of(kib: float | None) -> float | None:
        return None if kib is None else kib * _KIB

    budget = Budget(weight_bytes=bytes_of(weight_kib), state_bytes=bytes_of(state_kib), total_bytes=bytes_of(total_kib))
    settings = read_config(config, set, seed, allow_code)
    require(settings, "data", "quant")
    assert settings.data is not None
    assert settings.quant is not None
    place = (machine or Machine()).claim()
    model, _ = open_model(baseline)
    if spec_of(model) is not None:
        raise ModelError(f"{baseline} is quantized already; name the full-precision network it came from")
    splits = load_splits(settings.data)
    images = splits.test
    if n is not None:
        if not 1 <= n <= len(images):
            raise SpecError(f"--n must lie in 1..{len(images)}, the size of {images.name} ({images.split}), got {n}")
        images = images.first(n)

    def note(done: int, total: int) -> None:
        print(f"\rnetwork {done} of {total}", end="\n" if done == total else "", file=sys.stderr, flush=True)

    found = choose(
        model,
        settings.quant,
        bits,
        budget,
        splits.train,
        images,
        seed=settings.seed,
        calibration_images=settings.calibration.images,
        device=place,
        on_step=note if sys.stderr.isatty() else None,
    )
    return Report({**found.to_dict(), "environment": environment(place)}, found.table())
