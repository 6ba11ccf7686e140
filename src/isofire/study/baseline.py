"""Training a full-precision network and keeping all that tells how it came about."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch import nn

from isofire.data import ImageSet
from isofire.errors import CheckpointError, SpecError
from isofire.files import write_text
from isofire.json_text import to_json_text
from isofire.models import build, open_model, save_model
from isofire.study.environment import environment
from isofire.study.splits import AnySet, Splits
from isofire.training import EpochRecord, Evaluation, Recipe, evaluate, train
from isofire.training.checkpoint import load_weights
from isofire.training.distributed import pick_device
from isofire.training.resume import state_hash


@dataclass(frozen=True, eq=False)
class Baseline:
    """A trained network.

    Attributes
    ----------
    model
        With the weights that were chosen, in eval mode.
    epoch
        The one whose weights these are: the best on the validation images, without them the last.
    valid, test
        Accuracy and loss; `valid` is None without validation images.
    history
        All epochs.
    seconds
        Time spent, evaluations included; after a resumption, since then.
    """

    model: nn.Module
    epoch: int
    valid: Evaluation | None
    test: Evaluation
    history: tuple[EpochRecord, ...]
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """JSON values without the weights."""
        return {
            "epoch": self.epoch,
            "valid": msgspec.to_builtins(self.valid),
            "test": msgspec.to_builtins(self.test),
            "seconds": round(self.seconds, 3),
            "history": msgspec.to_builtins(self.history),
        }


def fresh_model(config: Mapping[str, Any], seed: int) -> nn.Module:
    """An untrained network whose weights depend on `config` and `seed` alone; torch's generator stays as it was.

    Raises
    ------
    SpecError
        If the builder or one of its arguments is not valid.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build(config)


def train_baseline(
    config: Mapping[str, Any],
    splits: Splits,
    recipe: Recipe,
    *,
    start: str | os.PathLike[str] | None = None,
    teacher: str | os.PathLike[str] | None = None,
    folder: str | os.PathLike[str] | None = None,
    device: torch.device | str | None = None,
    progress: bool = False,
    on_epoch: Callable[[EpochRecord], None] | None = None,
) -> Baseline | None:
    """Train a network, from scratch or from the weights of another, and test it once, at the end.

    Parameters
    ----------
    config
        Builder and arguments, see `isofire.models.build`; `recipe.seed` also decides the initial weights.
    start
        A model.safetensors whose weights training starts from; its network may have another T. Recorded in the note.
    teacher
        A network, as `isofire.models.open_model` takes it, for losses that compare with one. Recorded too.
    splits
        What to train on; validation images, if there are any, choose the epoch.
    folder
        For `model.safetensors`, `history.json`, `environment.json`, and, below `training/`, the state from which the
        same call goes on if it was cut off. Without a folder the last weights are kept, whatever validation says.
    device
        None takes CUDA if there is one, else the CPU. CUDA without an index is that of `LOCAL_RANK`.
    progress, on_epoch
        As in `isofire.training.train`.

    Returns
    -------
    Baseline | None
        None in processes other than the first that torchrun started.

    Raises
    ------
    SpecError, ModelError, OutputError, CheckpointError
        As `isofire.training.train` and `isofire.models.open_model`; CheckpointError also if `start` is quantized or of
        another architecture, SpecError if no loss asks for the teacher.
    """
    began, place = time.perf_counter(), pick_device(device, int(os.environ.get("LOCAL_RANK", "0")))
    out = None if folder is None else Path(folder)
    model = fresh_model(config, recipe.seed)
    origin = None if start is None else _start_from(start, model)
    taught = None if teacher is None else _teacher(teacher, recipe)
    result = train(
        model, splits.train, splits.valid, recipe, teacher=taught,
        out=out and out / "training", device=place, progress=progress, on_epoch=on_epoch,
    )  # fmt: skip
    if int(os.environ.get("RANK", "0")) != 0:
        return None
    chosen = result.final
    if splits.valid is not None and out is not None:
        chosen = result.load_best_(model)
    valid = None if splits.valid is None else evaluate(model, splits.valid, place, recipe.eval_batch_size)
    test = evaluate(model, splits.test, place, recipe.eval_batch_size)
    found = Baseline(model.eval(), chosen.epoch, valid, test, result.history, time.perf_counter() - began)
    if out is not None:
        _keep(
            out,
            found,
            splits,
            recipe,
            place,
            {
                "start": origin,
                "teacher": None if taught is None else {"name": str(teacher), "state": state_hash(taught)},
            },
        )
    return found


def _start_from(path: str | os.PathLike[str], model: nn.Module) -> dict[str, Any]:
    """Load the weights of a file; returns what is worth knowing of where they came from."""
    note = load_weights(path, model)
    if note.get("quantization") is not None:
        raise CheckpointError(f"{path} holds a quantized network; training starts from a full-precision one")
    return {key: note[key] for key in ("model", "recipe", "epoch", "accuracy", "start") if note.get(key) is not None}


def _teacher(name: str | os.PathLike[str], recipe: Recipe) -> nn.Module:
    if not recipe.losses_that_compare():
        raise SpecError(
            f"no loss of the recipe compares with the teacher {name}; name one ([train.losses] logits = 1.0), or leave "
            "the teacher out"
        )
    return open_model(name)[0]


def _keep(
    out: Path, found: Baseline, splits: Splits, recipe: Recipe, place: torch.device, came_from: Mapping[str, Any]
) -> None:
    about = environment(place)
    note = {
        "recipe": msgspec.to_builtins(recipe),
        **came_from,
        "seed": recipe.seed,
        "data": {"name": splits.train.name, "train_images": len(splits.train), "fingerprints": splits.fingerprints()},
        "normalization": _normalization(splits.train),
        "epoch": found.epoch,
        "accuracy": {"valid": msgspec.to_builtins(found.valid), "test": msgspec.to_builtins(found.test)},
        "environment": about,
    }
    save_model(out / "model.safetensors", found.model, note)
    write_text(out / "history.json", to_json_text(found.to_dict()))
    write_text(out / "environment.json", to_json_text(about))


def _normalization(data: AnySet) -> dict[str, list[float]] | None:
    return {"mean": list(data.mean), "std": list(data.std)} if isinstance(data, ImageSet) else None
