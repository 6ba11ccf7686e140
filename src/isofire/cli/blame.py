"""`isofire blame`."""

from __future__ import annotations

import sys
from pathlib import Path

from isofire.cli.config import read_config, require
from isofire.cli.options import AllowCode, ConfigFile, Machine, Output, Seed, Settings, refuse_processes
from isofire.cli.screen import Report
from isofire.errors import ModelError, SpecError
from isofire.models import open_model
from isofire.quantization import spec_of
from isofire.study import blame as measure
from isofire.study import environment, load_splits


def blame(
    baseline: Path,
    /,
    *,
    config: ConfigFile,
    set: Settings = (),
    allow_code: AllowCode = False,
    n: int | None = None,
    seed: Seed = None,
    machine: Machine | None = None,
    output: Output | None = None,
) -> Report:
    """Show which layer's quantizer makes firing drift: each alone and all but each, after training.

    Needs the tables [data] and [quant]. Of q quantized modules it makes and compares 2 q + 2 networks, so choose few
    images with --n first. With --json it also gives the EMD of every layer of neurons for each of them.

    ```
    isofire blame runs/fp/model.safetensors -c configs/digits-demo.toml --n 500
    ```

    Parameters
    ----------
    baseline
        The full-precision network, a model.safetensors that isofire wrote.
    n
        How many test images; by default all.
    """
    refuse_processes("blame")
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

    found = measure(
        model,
        settings.quant,
        splits.train,
        images,
        seed=settings.seed,
        calibration_images=settings.calibration.images,
        device=place,
        on_step=note if sys.stderr.isatty() else None,
    )
    return Report({**found.to_dict(), "environment": environment(place)}, found.table())
