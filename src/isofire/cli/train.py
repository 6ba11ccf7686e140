"""`isofire train`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path

import torch

from isofire.cli.options import (
    AllowCode,
    ConfigFile,
    Machine,
    Out,
    Output,
    Seed,
    SetChoice,
    Settings,
    deciding,
    out_folder,
)
from isofire.cli.screen import Log, Report, open_folder
from isofire.config import RunConfig, read_config, require
from isofire.errors import OutputError
from isofire.files import write_text
from isofire.folder_lock import hold
from isofire.json_text import to_json_text
from isofire.study import load_splits, train_baseline
from isofire.training import EpochRecord, Evaluation
from isofire.training.progress import line


def train(
    *,
    config: ConfigFile,
    set: Settings = (),
    allow_code: AllowCode = False,
    choice: SetChoice | None = None,
    start: Path | None = None,
    teacher: Path | None = None,
    out: Out = None,
    seed: Seed = None,
    machine: Machine | None = None,
    output: Output | None = None,
) -> Report | None:
    """Train a full-precision network; needs the tables [model], [data] and [train].

    Writes model.safetensors (the best epoch on the validation images), history.json, environment.json, config.json and
    log.txt. The test images are used once, at the end. A run that was cut off goes on when it is started again; without
    --out and `out` each recipe and seed has a folder of its own.

    ```
    isofire train -c config.toml --set train.epochs=2 --out runs/short
    isofire train -c configs/cifar10-sew8.toml --data cifar10 --root DIR
    isofire train --config configs/digits-demo.toml --out runs/fp
    ```

    Parameters
    ----------
    start
        A full-precision model.safetensors to start from instead of new weights; it may have run another T.
    teacher
        A model.safetensors, or the name of a pretrained network, for losses that compare with one.
    """
    settings = read_config(config, set, seed, allow_code, data=(choice or SetChoice()).given())
    require(settings, "model", "data", "train")
    place = (machine or Machine()).claim()
    given = {"start": start, "teacher": teacher}
    decides = [deciding(settings, "model", "data", "train"), None if start is None else str(start)]
    decides += [] if teacher is None else [str(teacher)]
    target = out_folder(out, settings.out, config.stem, settings.seed, decides)
    # a training of other settings is refused by its own state
    if (target / "model.safetensors").exists() and not (target / "training").is_dir():
        raise OutputError(f"{target / 'model.safetensors'} is there already, not of isofire train; name another --out")
    folder = open_folder(target)
    with hold(folder) if int(os.environ.get("RANK", "0")) == 0 else nullcontext():
        return _train(settings, folder, given, place)


def _train(settings: RunConfig, folder: Path, given: Mapping[str, Path | None], place: torch.device) -> Report | None:
    assert settings.model is not None
    assert settings.data is not None
    assert settings.train is not None
    log, epochs = Log(folder), settings.train.epochs
    splits = load_splits(settings.data)
    held_out = f", {len(splits.valid):,} held out to choose the epoch" if splits.valid else ""
    log(f"training {settings.model['builder']} on {len(splits.train):,} images of {settings.data.name}{held_out}")
    if settings.train.precision == "bf16" and place.type == "cpu" and not _has_bf16():
        log("torch has no bf16 kernels for this processor and emulates them; train.precision=float32 is faster here")

    def note(record: EpochRecord) -> None:
        log(line(record, epochs), to_screen=False)

    found = train_baseline(
        settings.model, splits, settings.train,
        **given, folder=folder, device=place, progress=True, on_epoch=note,
    )  # fmt: skip
    if found is None:
        return None
    write_text(folder / "config.json", to_json_text(settings.to_dict()))
    log(f"epoch {found.epoch} of {epochs} kept; {_scored('test', found.test)}; {found.seconds:.0f} s", to_screen=False)
    path = folder / "model.safetensors"
    lines = [f"model     {path}", f"epoch     {found.epoch} of {epochs}"]
    lines += [f"valid     {_scored('accuracy', found.valid)}"] if found.valid else []
    lines += [f"test      {_scored('accuracy', found.test)}"]
    return Report({"model": str(path), "seed": settings.seed, **found.to_dict()}, "\n".join(lines))


def _has_bf16() -> bool:
    """Whether convolutions in bf16 are run as such by this processor."""
    asked = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
    return asked is None or bool(asked())


def _scored(name: str, score: Evaluation) -> str:
    return f"{name} {100 * score.accuracy:.2f} % (n = {score.n:,})"
