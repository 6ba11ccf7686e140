"""`isofire quantize`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from cyclopts import Parameter
from torch import nn

from isofire.cli.compare import keep_comparison
from isofire.cli.config import RunConfig, read_config, require
from isofire.cli.named import ModelChoice
from isofire.cli.options import (
    AllowCode,
    ConfigFile,
    Machine,
    Out,
    Output,
    Seed,
    Settings,
    deciding,
    out_folder,
    refuse_processes,
)
from isofire.cli.screen import Log, Report, open_folder
from isofire.data import EventSet, ImageSet
from isofire.errors import DataError, ModelError, SpecError
from isofire.files import is_same_file, write_text
from isofire.folder_lock import hold
from isofire.json_text import to_json_text
from isofire.models import NamedData, load_named, open_named, save_model, save_named
from isofire.quantization import make_plan, reestimates, spec_of
from isofire.study import DataSettings, NamedSplits, Splits, environment, fresh_model, load_splits, run_cell
from isofire.study.cell import COST_IMAGES
from isofire.training import EpochRecord
from isofire.training.progress import line


def quantize(
    baseline: Path | None = None,
    /,
    *,
    config: ConfigFile | None = None,
    preset: str | None = None,
    network: ModelChoice | None = None,
    data: str | None = None,
    set: Settings = (),
    allow_code: AllowCode = False,
    mode: Annotated[Literal["ptq", "qat"], Parameter(name=["--mode", "-m"])] = "ptq",
    split: Literal["test", "valid"] = "test",
    from_scratch: Annotated[bool, Parameter(negative=(), show_default=False)] = False,
    control: Annotated[bool, Parameter(negative=(), show_default=False)] = False,
    out: Out = None,
    seed: Seed = None,
    machine: Machine | None = None,
    output: Output | None = None,
) -> Report:
    """Quantize a trained network and compare it with the original; needs the tables [data] and [quant].

    Writes model.safetensors, comparison.json, row.csv, row.json, environment.json, config.json, log.txt and, where
    matplotlib is installed, figure.png.

    ```
    isofire quantize runs/fp/model.safetensors -c configs/digits-demo.toml
    isofire quantize FP.safetensors -c CONFIG.toml --mode qat --out runs/qat
    isofire quantize FP.safetensors --preset keep-firing --set data.name=digits
    isofire quantize FP.safetensors -c CONFIG.toml --set quant.weights.bits=2 --split valid
    isofire quantize FP.safetensors -c CONFIG.toml \\
        --set 'quant.weights={method="lqnet", bits=2}'
    isofire quantize --model nets:build --weights FILE.safetensors --data nets:load -c CONFIG.toml
    ```

    Parameters
    ----------
    baseline
        The full-precision network, a model.safetensors that isofire wrote; or --model names one of yours.
    preset
        A spec by its name, instead of the table [quant]: keep-firing (4-bit weights, 2-bit states), keep-firing-2bit
        (both 2 bits) or keep-firing-1bit-state; see docs/keep-firing.md. --set changes single settings of it.
    data
        With --model, instead of the set that the table [data] names: package.module:loader, called with "train" and
        "test". To train on, it gives sets of isofire.data, which [data] may cut.
    mode
        ptq: quantize after training. qat: then train on with the quantizers in place, as the table [qat] says; the
        weights of the last epoch are kept.
    split
        Images to compare on. valid, which needs data.valid: to choose bits, method or recipe. test: for the final
        table, once the choices are made.
    from_scratch
        With --mode qat, start from a fresh network of the table [model], or of --model's builder, instead of the
        trained one.
    control
        Quantize nothing, and go through the same steps: batch norm re-estimated (ptq), or training continued (qat).
        The network is the noise floor for `compare --control` and `check --control`. [quant] is not needed; where it is
        there, it says whether batch norm is re-estimated.
    """
    refuse_processes("quantize")
    if from_scratch and mode == "ptq":
        raise SpecError("--from-scratch trains, so it goes with --mode qat")
    if config is None and preset is None:
        raise SpecError("what to quantize is said by --config FILE or --preset keep-firing; give one")
    settings, chosen = read_config(config, set, seed, allow_code, preset), network or ModelChoice()
    if baseline is not None and chosen.model is not None:
        raise SpecError("--model takes its file by --weights; leave the other file out")
    if data is not None and chosen.model is None:
        raise SpecError("--data goes with --model; the data of isofire's networks are the configuration's [data]")
    needed = [*([] if data else ["data"]), *([] if control else ["quant"]), *(["qat"] if mode == "qat" else [])]
    require(settings, *needed, *(["model"] if from_scratch and chosen.model is None else []))
    if split == "valid" and not (settings.data and settings.data.valid):
        raise SpecError("--split valid needs images that are held out; set data.valid to their number")
    place = (machine or Machine()).claim()
    model, _ = chosen.open(baseline)
    told = chosen.model or str(baseline)
    if spec_of(model) is not None:
        raise ModelError(f"{baseline or chosen.weights} is quantized already; quantize the full-precision network")
    spec, start = None if control else settings.quant, _start(model, settings, chosen, config, told, from_scratch)
    if spec is not None:
        make_plan(model, spec)
    if control and mode == "ptq" and settings.quant is not None and not reestimates(model, settings.quant):
        raise SpecError(
            f"[quant] of {config or preset} re-estimates no batch norm, so after training its control is {told} "
            "itself; take the floor of other images, which is the default"
        )
    parts = ("data", "quant", "calibration", *(["qat"] if mode == "qat" else []))
    decides = [deciding(settings, *parts), told, str(chosen.weights), data, split, from_scratch]
    name = f"{config.stem if config else preset}-{mode}{'-control' if control else ''}"
    target = out_folder(out, settings.out, name, settings.seed, decides)
    if baseline is not None and is_same_file(target, os.path.dirname(os.path.realpath(baseline))):
        raise SpecError(f"--out {target} holds the baseline, whose model.safetensors would be replaced; name another")
    folder = open_folder(target)
    with hold(folder):
        splits, log = _splits(settings, data, mode), Log(folder)
        images = splits.test if splits.valid is None or split == "test" else splits.valid
        size = "" if isinstance(images, NamedData) else f"{len(images):,} images of "
        on = f"{size}{data or images.name} ({images.split})"
        doing = "a control of" if control else "quantizing"
        log(f"{doing} {baseline.name if baseline else told} ({mode}), comparing on {on}")

        def note(record: EpochRecord) -> None:
            assert settings.qat is not None
            log(line(record, settings.qat.epochs), to_screen=False)

        cell = run_cell(
            model,
            spec,
            mode=mode,
            train_set=splits.train,
            test_set=images,
            valid_set=splits.valid,
            recipe=settings.qat if mode == "qat" else None,
            seed=settings.seed,
            start=start,
            model_name=chosen.model,
            data_name=data,
            calibration_images=settings.calibration.images,
            cost_images=COST_IMAGES,
            device=place,
            folder=folder / "training" if mode == "qat" else None,
            progress=True,
            on_epoch=note,
        )
        about = environment(place)
        used = {**settings.to_dict(), "model": chosen.model or model.__dict__.get("config")}
        write_text(folder / "config.json", to_json_text(used))
        about_model = {
            "row": cell.row,
            "recipe": msgspec.to_builtins(settings.qat) if mode == "qat" else None,
            "from_scratch": from_scratch,
            "seed": settings.seed,
            "environment": about,
            "data": {"name": data or splits.train.name, "fingerprints": splits.fingerprints()},
        }
        path = folder / "model.safetensors"
        if chosen.model is None:
            files = [save_model(path, cell.model, about_model)]
        else:
            files = [save_named(path, cell.model, chosen.model, about_model)]
        files += keep_comparison(folder, cell.comparison, cell.row, about, log)
    document = {"row": cell.row, **cell.comparison.to_dict(), "environment": about, "files": [str(f) for f in files]}
    written = "\n".join(f"wrote {file}" for file in files)
    return Report(document, f"{cell.comparison.table()}\n\n{written}")


def _splits(settings: RunConfig, data: str | None, mode: str) -> Splits | NamedSplits:
    """The images of the configuration, or of --data: cut as [data] says, if they are sets that can be cut."""
    if data is None:
        assert settings.data is not None
        return load_splits(settings.data)
    train = load_named(data, "train")
    cut = settings.data or DataSettings(name=data)
    if isinstance(train.data, ImageSet | EventSet):
        return load_splits(msgspec.structs.replace(cut, name=data, root=None, download=False, options={}))
    if mode == "qat" or settings.data is not None:
        raise DataError(
            f"the loader {data} must give an isofire.data.ImageSet or EventSet to be trained on or cut, got "
            f"{type(train.data).__name__}; or use --mode ptq, without [data]"
        )
    return NamedSplits(train, load_named(data, "test"))


def _start(
    model: nn.Module, settings: RunConfig, chosen: ModelChoice, config: Path | None, told: str, from_scratch: bool
) -> nn.Module | None:
    """Where training starts if not at the network; whether [model] describes the network."""
    if chosen.model is not None:
        return open_named(chosen.model)[0] if from_scratch else None
    fresh = None if settings.model is None else fresh_model(settings.model, settings.seed)
    if fresh is not None:
        _check_same(model, fresh, config, told)
    return fresh if from_scratch else None


def _check_same(network: nn.Module, described: nn.Module, config: Path | None, baseline: str) -> None:
    """The table [model], where there is one, must describe the network of the file."""
    stored, told = network.__dict__.get("config") or {}, described.__dict__.get("config") or {}
    differing = [key for key in told if told[key] != stored.get(key)]
    if differing:
        values = "; ".join(f"{key} is {stored.get(key)!r} there, {told[key]!r} here" for key in differing)
        raise SpecError(
            f"[model] of {config or '--set'} describes another network than {baseline}: {values}; change one of them"
        )
