"""`isofire quantize --model`: a network of the user's own code."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from isofire.adapters import copy_of
from isofire.cli.compare import keep_comparison
from isofire.cli.config import RunConfig
from isofire.cli.named import ModelChoice
from isofire.cli.options import out_folder
from isofire.cli.screen import Log, Report, open_folder
from isofire.errors import ModelError, SpecError
from isofire.firing import compare
from isofire.models import load_named, save_named
from isofire.quantization import labels_of, make_plan, quantize_, spec_of
from isofire.study import environment


def quantize_named(
    choice: ModelChoice, data: str | None, config: Path, settings: RunConfig, out: Path | None, place: torch.device
) -> Report:
    """Quantize the network of a builder after training, on the loader's split "train", and compare on its "test".

    Raises
    ------
    SpecError
        If no loader is named.
    ModelError
        If the network is quantized already.
    """
    assert choice.model is not None
    assert settings.quant is not None
    if data is None:
        raise SpecError("--model needs --data package.module:loader, which gives the splits 'train' and 'test'")
    network, _ = choice.open(None)
    if spec_of(network) is not None:
        raise ModelError(f"{choice.weights} is quantized already; quantize the full-precision network it came from")
    make_plan(network, settings.quant)
    folder = open_folder(out_folder(out, settings.out, f"{config.stem}-ptq"))
    train, test, log = load_named(data, "train"), load_named(data, "test"), Log(folder)
    log(f"quantizing {choice.model}, comparing on {data} (test)")
    quantized = copy_of(network).to(place)
    quantize_(quantized, settings.quant, train, max_images=settings.calibration.images)
    show = sys.stderr.isatty()
    found = compare(network, quantized, test, batch_size=128, device=place, progress=show)
    row = found.row(model=choice.model, data=data, **labels_of(settings.quant), mode="ptq")
    about = environment(place)
    files = [save_named(folder / "model.safetensors", quantized, choice.model, {"row": row, "environment": about})]
    files += keep_comparison(folder, found, row, about, log)
    document = {"row": row, **found.to_dict(), "environment": about, "files": [str(file) for file in files]}
    written = "\n".join(f"wrote {file}" for file in files)
    return Report(document, f"{found.table()}\n\n{written}")
