"""One cell of a study: quantize a network in one way, compare it with its baseline, and give one result row."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, cast, get_args

import msgspec
import torch
from torch import nn

from isofire.adapters import copy_of
from isofire.batches import BatchSource, Data, count_images
from isofire.config import Mode
from isofire.errors import ModelError, SpecError
from isofire.firing import Comparison, Observation, compare
from isofire.firing.cost import Cost, CostComparison, measure_cost
from isofire.models import NamedData
from isofire.quantization import (
    CALIBRATION_BATCH,
    CALIBRATION_IMAGES,
    OnStep,
    calibrate_,
    calibrated_on,
    convert_,
    labels_of,
    prepare_,
    quantize_,
    reestimate_batch_norm,
)
from isofire.spec import QuantSpec
from isofire.study.quick import is_wanted, looked_up, quickened
from isofire.study.splits import AnySet, as_set, sample
from isofire.training import EpochRecord, Recipe, train
from isofire.training.distributed import pick_device

COST_IMAGES = 100
"""Images on which a cell's cost is measured: following a network operation by operation takes longer than running it,
and costs vary little from image to image."""

CONTROLS = {"ptq": "BN re-estimated", "qat": "continued"}
"""What stands in the column `method` of the controls, which quantize nothing."""


@dataclass(frozen=True, eq=False)
class Cell:
    """A finished cell.

    Attributes
    ----------
    row
        Labels, measures and provenance, see `isofire.study.known_columns`.
    comparison
        The layers behind the row.
    model
        The quantized network, in eval mode.
    history
        The epochs of quantization-aware training; empty after post-training quantization.
    """

    row: dict[str, Any]
    comparison: Comparison
    model: nn.Module
    history: tuple[EpochRecord, ...]


def run_cell(
    baseline: nn.Module,
    spec: QuantSpec | None,
    *,
    mode: Mode,
    train_set: AnySet | NamedData | Data,
    test_set: AnySet | NamedData | Data,
    valid_set: AnySet | None = None,
    recipe: Recipe | None = None,
    seed: int = 0,
    start: nn.Module | None = None,
    observed: Observation | None = None,
    model_name: str | None = None,
    data_name: str | None = None,
    calibration_images: int = CALIBRATION_IMAGES,
    max_images: int | None = None,
    batch_size: int = 128,
    cost_images: int = 0,
    baseline_cost: Cost | None = None,
    fast: bool | None = None,
    device: torch.device | str | None = None,
    folder: str | os.PathLike[str] | None = None,
    progress: bool = False,
    on_epoch: Callable[[EpochRecord], None] | None = None,
    on_step: OnStep | None = None,
) -> Cell:
    """Quantize a copy of `baseline` and measure how its accuracy and firing changed on the same images.

    The result depends on the arguments alone, so a caller that stores the row need never run the cell again.

    Parameters
    ----------
    baseline
        The full-precision network; it is not changed.
    spec
        What to quantize. None is a control, which shows what the procedure itself does to the firing: batch-norm
        statistics re-estimated on the calibration images ("ptq"), or training continued by the same recipe ("qat").
    mode
        "ptq" quantizes the trained weights; "qat" also trains with the quantizers in place, by `recipe`, and keeps
        the weights of the last epoch. Losses of the recipe that compare with a teacher get the baseline.
    train_set
        To calibrate on and to train with; a pair of tensors, or batches, become a set in memory.
    test_set
        To compare on.
    valid_set
        Only watched during training; it chooses nothing.
    seed
        Decides which images calibrate, and replaces the seed of `recipe`.
    start
        Where "qat" starts instead of at `baseline`, for instance an untrained network; it is not changed.
    observed
        What `isofire.firing.observe` saw of the baseline on these test images; saves running it again.
    model_name
        For the column `model`; None takes it from the baseline's `config`.
    data_name
        For the column `data`; None takes the test set's.
    calibration_images
        Images for batch-norm statistics and membrane ranges; all, if the train set has fewer. Layer by layer the
        first of them alone, see `isofire.quantization.calibrate_`.
    max_images, batch_size
        How many test images to compare on (None: all), and how many at once.
    cost_images
        On how many of the test images to measure what an inference costs, see `CostComparison.row`; 0 leaves it out.
    baseline_cost
        What `measure_cost` found of the baseline on these; saves measuring it again.
    fast
        Whether the spikes of a post-training network may be counted by `isofire.fast`, on a CPU and on 1,000 images or
        more: several times faster, a few spikes in a million others, see docs/fast.md. The row then says so in the
        column `forward`. None: unless ISOFIRE_FAST is 0.
    device
        None takes CUDA if there is one, else the CPU. CUDA without an index is that of `LOCAL_RANK`.
    folder
        Where training keeps its state, so that a cell that was cut off goes on there.
    progress, on_epoch
        As in `isofire.training.train`.
    on_step
        As in `isofire.quantize_`: called with what was done to each layer, where layers are calibrated one after the
        other.

    Raises
    ------
    SpecError
        If "qat" has no recipe, or settings do not fit the model or the data.
    ModelError
        If the model cannot be quantized, or training diverges.
    """
    if mode not in get_args(Mode):
        raise SpecError(f"mode must be ptq or qat, got {mode!r}")
    if mode == "qat" and recipe is None:
        raise SpecError("mode 'qat' trains, so it needs a recipe; give one or use mode 'ptq'")
    if mode == "ptq" and start is not None:
        raise SpecError("mode 'ptq' quantizes the baseline, so it takes no other start; leave it out or use mode 'qat'")
    train_set, test_set = _set_of(train_set, "train"), _set_of(test_set, "test")
    began, place = time.perf_counter(), pick_device(device, int(os.environ.get("LOCAL_RANK", "0")))
    if mode == "qat" and isinstance(train_set, NamedData):
        raise SpecError(f"mode 'qat' trains, so it needs a set of isofire.data, got batches of {train_set.name}")
    batches, count = _calibration(train_set, calibration_images, seed, place)
    history: tuple[EpochRecord, ...] = ()
    if mode == "ptq":
        model = _post_training(baseline, spec, batches, place, count, on_step)
    else:
        model = copy_of(baseline if start is None else start).to(place)
        if spec is not None:
            model = calibrate_(prepare_(model, spec), batches, max_images=count, on_step=on_step)
        assert recipe is not None
        assert not isinstance(train_set, NamedData)
        recipe = msgspec.structs.replace(recipe, seed=seed)
        history = train(
            model, train_set, valid_set, recipe, teacher=baseline, out=folder, device=place, progress=progress,
            on_epoch=on_epoch,
        ).history  # fmt: skip
        if spec is not None:
            convert_(model)
    runs = model.eval()
    if mode == "ptq" and spec is not None and (is_wanted() if fast is None else fast):
        runs = quickened(model, test_set, max_images, place)
    comparison = compare(
        observed or baseline, runs, test_set, max_images=max_images, batch_size=batch_size, device=place,
        progress=progress and sys.stderr.isatty(),
    )  # fmt: skip
    cost = _cost_row(baseline_cost or baseline, model, test_set, cost_images) if cost_images else {}
    labels = {
        "model": model_name or name_of(baseline),
        "data": data_name or name_of_data(test_set),
        **(labels_of(spec) if spec is not None else _control_labels(mode)),
        "options": _options(labels_of(spec)["options"], start is not None, recipe if mode == "qat" else None),
        "mode": mode,
        "seed": seed,
        "epochs": len(history),
        "calibration_images": calibrated_on(model) or count,
        "seconds": round(time.perf_counter() - began, 3),
        "spec": None if spec is None else spec.hash(),
        **({"forward": "look-up"} if looked_up(runs) else {}),
    }
    return Cell({**comparison.row(**labels), **cost}, comparison, model, history)


def _cost_row(
    baseline: nn.Module | Cost, model: nn.Module, test_set: AnySet | NamedData, images: int
) -> dict[str, Any]:
    """The columns of cost; a network whose operations cannot be followed has none, and says why."""
    try:
        before = baseline if isinstance(baseline, Cost) else measure_cost(baseline, test_set, max_images=images)
        after = measure_cost(model, test_set, max_images=images)
    except ModelError as error:
        return {"cost_left_out": f"everything: {error}"}
    return CostComparison(baseline=before, quantized=after).row()


def name_of(model: nn.Module) -> str:
    """A short name: the builder and what sets the size, such as "sew_resnet8 x0.5"; else the class.

    Examples
    --------
    >>> name_of(nn.Identity())
    'Identity'
    """
    config = model.__dict__.get("config")
    if not isinstance(config, dict) or "builder" not in config:
        return type(model).__name__
    width = config.get("width", 1.0)
    return config["builder"] if width == 1.0 else f"{config['builder']} x{width:g}"


def name_of_data(data: AnySet | NamedData) -> str:
    """For the column `data`: the set, and the split unless it is test."""
    return data.name if data.split == "test" else f"{data.name} {data.split}"


def is_control(row: dict[str, Any]) -> bool:
    """Whether a row is of a control, in which nothing was quantized."""
    return row.get("target") == "none"


def _control_labels(mode: Mode) -> dict[str, Any]:
    return {**labels_of(None), "method": CONTROLS[mode]}


def _set_of(data: AnySet | NamedData | Data, split: str) -> AnySet | NamedData:
    return data if isinstance(data, NamedData) else as_set(data, split)


def _calibration(train_set: AnySet | NamedData, images: int, seed: int, place: torch.device) -> tuple[Data, int]:
    """What to calibrate on, and how many images that are: drawn by class from a set, the first of anything else."""
    if images < 1:
        raise SpecError(f"calibration images must be at least 1, got {images}")
    if isinstance(train_set, NamedData):
        return train_set.first(images), count_images(train_set, images) or images
    chosen = train_set if images >= len(train_set) else sample(train_set, images, seed, "calibration.images")
    return chosen.batches(CALIBRATION_BATCH, device=place), len(chosen)


def _post_training(
    baseline: nn.Module,
    spec: QuantSpec | None,
    batches: Data,
    place: torch.device,
    images: int,
    on_step: OnStep | None,
) -> nn.Module:
    model = copy_of(baseline).to(place)
    if spec is not None:
        return quantize_(model, spec, batches, max_images=images, on_step=on_step)
    walked = batches.batches(CALIBRATION_BATCH) if isinstance(batches, BatchSource) else batches
    reestimate_batch_norm(model, cast(Iterable[Sequence[torch.Tensor]], walked), device=place)
    return model


def _options(of_spec: str | float | None, from_scratch: bool, recipe: Recipe | None) -> str | None:
    """What else decides a row: the spec's further settings, where training started, and its further losses."""
    parts = [str(of_spec)] if of_spec else []
    losses = [] if recipe is None else recipe.labels()
    return " ".join([*parts, *(["from_scratch"] if from_scratch else []), *losses]) or None
