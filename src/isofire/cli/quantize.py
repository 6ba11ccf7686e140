"""`isofire quantize`."""

from __future__ import annotations

import os
from typing import Annotated, Literal

import msgspec
from cyclopts import Parameter
from torch import nn

from isofire.cli.compare import keep_comparison
from isofire.cli.earlier import CONFIG, Force, keep_earlier
from isofire.cli.named import FullPrecision, ModelChoice
from isofire.cli.options import Machine, Out, Output, QuantChoice, deciding, out_folder, refuse_processes
from isofire.cli.progress import LayersTold
from isofire.cli.screen import Log, Report, open_folder
from isofire.config import RunConfig, require
from isofire.errors import SpecError
from isofire.files import is_same_file, write_text
from isofire.folder_lock import hold
from isofire.json_text import to_json_text
from isofire.models import NamedData, is_named, save_model, save_named
from isofire.quantization import left_out, make_plan, reestimates
from isofire.study import environment, fresh_model, load_splits, load_splits_or_batches, run_cell
from isofire.study.cell import COST_IMAGES
from isofire.training import EpochRecord
from isofire.training.progress import line


def quantize(
    baseline: FullPrecision = None,
    /,
    *,
    asked: QuantChoice | None = None,
    network: ModelChoice | None = None,
    mode: Annotated[Literal["ptq", "qat"], Parameter(name=["--mode", "-m"])] = "ptq",
    split: Literal["test", "valid"] = "test",
    from_scratch: Annotated[bool, Parameter(negative=(), show_default=False)] = False,
    control: Annotated[bool, Parameter(negative=(), show_default=False)] = False,
    out: Out = None,
    force: Force = False,
    machine: Machine | None = None,
    output: Output | None = None,
) -> Report:
    """Quantize a trained network and compare it with the original.

    Needs data, by --data or the table [data], and what to quantize, by --preset or the table [quant].
    Writes model.safetensors, comparison.json, row.csv, row.json, environment.json, config.json, log.txt and, where
    matplotlib is installed, figure.png. A folder with the result of other settings is refused (--force).

    ```
    isofire quantize fp.safetensors -c configs/digits-demo.toml --mode qat --out runs/qat
    isofire quantize fp.safetensors -c config.toml --set 'quant.weights={method="lqnet", bits=2}' --split valid
    isofire quantize --model nets:build --weights weights.safetensors --data nets:load -c spec.toml
    isofire quantize sew_resnet8-digits --preset keep-firing --data digits --out runs/q
    ```

    Parameters
    ----------
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
    choice = asked or QuantChoice()
    settings = choice.read("data", *([] if control else ["quant"]), *(["qat"] if mode == "qat" else []))
    data = settings.data
    assert data is not None
    if split == "valid" and not data.valid:
        raise SpecError("--split valid needs images that are held out; set data.valid to their number")
    place = (machine or Machine()).claim()
    model, chosen = (network or ModelChoice()).open_baseline(baseline)
    told = chosen.model or str(baseline)
    settings = choice.fit(settings, model)
    if from_scratch and chosen.model is None:
        require(settings, "model")
    start = _start(model, settings, chosen, choice.source, told, from_scratch)
    spec = None if control else settings.quant
    unquantized = [] if spec is None else left_out(model, make_plan(model, spec))
    if control and mode == "ptq" and settings.quant is not None and not reestimates(model, settings.quant):
        raise SpecError(
            f"[quant] of {choice.source} re-estimates no batch norm, so after training its control is {told} "
            "itself; take the floor of other images, which is the default"
        )
    parts = ("data", "quant", "calibration", *(["qat"] if mode == "qat" else []))
    decides = [deciding(settings, *parts), told, str(chosen.weights), split, from_scratch]
    command = {
        "command": "quantize", "network": told, "weights": str(chosen.weights), "mode": mode, "split": split,
        "from_scratch": from_scratch, "control": control, "seed": settings.seed, **deciding(settings, *parts),
    }  # fmt: skip
    name = f"{choice.stem}-{mode}{'-control' if control else ''}"
    target = out_folder(out, settings.out, name, settings.seed, decides)
    if baseline is not None and is_same_file(target, os.path.dirname(os.path.realpath(baseline))):
        raise SpecError(f"--out {target} holds the baseline, whose model.safetensors would be replaced; name another")
    keep_earlier(target, "model.safetensors", command, force)
    folder = open_folder(target)
    with hold(folder):
        splits, log = (load_splits if mode == "qat" else load_splits_or_batches)(data), Log(folder)
        data_name = data.name if is_named(data.name) else None
        images = splits.test if splits.valid is None or split == "test" else splits.valid
        size = "" if isinstance(images, NamedData) else f"{len(images):,} images of "
        on = f"{size}{data_name or images.name} ({images.split})"
        doing = "a control of" if control else "quantizing"
        log(f"{doing} {baseline.name if baseline else told} ({mode}), comparing on {on}")

        def note(record: EpochRecord) -> None:
            assert settings.qat is not None
            log(line(record, settings.qat.epochs), to_screen=False)

        with LayersTold(log) as told_step:
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
                data_name=data_name,
                calibration_images=settings.calibration.images,
                cost_images=COST_IMAGES,
                device=place,
                folder=folder / "training" if mode == "qat" else None,
                progress=True,
                on_epoch=note,
                on_step=told_step,
            )
        about = environment(place)
        used = {**settings.to_dict(), "model": chosen.model or model.__dict__.get("config")}
        write_text(folder / CONFIG, to_json_text({**used, "command": command}))
        about_model = {
            "row": cell.row,
            "recipe": msgspec.to_builtins(settings.qat) if mode == "qat" else None,
            "from_scratch": from_scratch,
            "seed": settings.seed,
            "environment": about,
            "data": {"name": data_name or splits.train.name, "fingerprints": splits.fingerprints()},
        }
        path = folder / "model.safetensors"
        if chosen.model is None:
            files = [save_model(path, cell.model, about_model)]
        else:
            files = [save_named(path, cell.model, chosen.model, about_model)]
        files += keep_comparison(folder, cell.comparison, cell.row, about, log)
    document = {
        "row": cell.row,
        **cell.comparison.to_dict(),
        "not_quantized": [item._asdict() for item in unquantized],
        "environment": about,
        "files": [str(f) for f in files],
    }
    told_left = "".join(
        f"NOT QUANTIZED, of a kind that no method takes or no part for torch: {item}\n" for item in unquantized
    )
    written = "\n".join(f"wrote {file}" for file in files)
    return Report(document, f"{cell.comparison.table()}\n{told_left}\n{written}")


def _start(
    model: nn.Module, settings: RunConfig, chosen: ModelChoice, source: str, told: str, from_scratch: bool
) -> nn.Module | None:
    """Where training starts if not at the network; whether [model] describes the network."""
    if chosen.model is not None:
        return chosen.fresh() if from_scratch else None
    fresh = None if settings.model is None else fresh_model(settings.model, settings.seed)
    if fresh is not None:
        _check_same(model, fresh, source, told)
    return fresh if from_scratch else None


def _check_same(network: nn.Module, described: nn.Module, source: str, baseline: str) -> None:
    """The table [model], where there is one, must describe the network of the file."""
    stored, told = network.__dict__.get("config") or {}, described.__dict__.get("config") or {}
    differing = [key for key in told if told[key] != stored.get(key)]
    if differing:
        values = "; ".join(f"{key} is {stored.get(key)!r} there, {told[key]!r} here" for key in differing)
        raise SpecError(f"[model] of {source} describes another network than {baseline}: {values}; change one of them")
