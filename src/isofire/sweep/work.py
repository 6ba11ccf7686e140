"""Doing one task: claim it, compute it, publish it whole, or record why that failed."""

from __future__ import annotations

import errno
import time
import traceback
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch import nn

from isofire.config import DataSettings
from isofire.errors import IsofireError, ModelError, OutputError
from isofire.files import write_text
from isofire.firing import Observation, observe
from isofire.firing.cost import Cost, measure_cost
from isofire.json_text import to_json_text
from isofire.models import load_model, open_named, save_model, save_named
from isofire.study import Splits, environment, load_splits, run_cell, train_baseline
from isofire.study.cell import COST_IMAGES
from isofire.study.distributions import distributions
from isofire.sweep.given import given_model, identity_of
from isofire.sweep.manifest import Kind
from isofire.sweep.plan import fingerprints_of, versions
from isofire.sweep.store import Store, Superseded
from isofire.sweep.task import BaselineTask, CellTask, Outcome, Task
from isofire.training.distributed import pick_device

_SHOWN = 200
"""Characters of what differs from the plan."""
_SHOWN_IMAGES = 64
"""Training images that membrane histograms are made of."""


class Changed(IsofireError):
    """A worker has another network, other images or other versions than the key of its task was made from."""


def perform(task: Task, local_rank: int = 0) -> Outcome:
    """Do a task unless it is finished or another process is at it.

    Parameters
    ----------
    local_rank
        Which of several CUDA devices to use.
    """
    began, store = time.perf_counter(), Store(task.folder)
    kind: Kind = "baselines" if task.cell is None else "cells"
    try:
        if store.exists(kind, task.key):
            return Outcome(kind="done")
        claim = store.claim(task.key)
        if claim is None:
            return Outcome(kind="held")
        with claim:
            # somebody may have finished it between the look and the claim
            if store.check(kind, task.key):
                return Outcome(kind="done")
            store.clear(task.key)
            store.note("started", task.key, title=task.title)
            try:
                store.publish(kind, task.key, _writer(task, store, local_rank), lambda: claim.is_held)
            except Exception as error:
                # whatever went wrong, what the new owner finds is what counts
                if isinstance(error, Superseded) or not claim.is_held:
                    return Outcome(kind="held")
                if isinstance(error, Changed):
                    return Outcome(kind="stopped", reason=str(error))
                if isinstance(error, OutputError):
                    raise
                if _is_full(error):
                    raise OutputError(
                        f"the disk or quota of {store.root} is full; make room, then run again"
                    ) from error
                return _failed(task, store, error, time.perf_counter() - began)
            store.forget_training(task.key)
            store.forgive(task.key)
            seconds = time.perf_counter() - began
            store.note("finished", task.key, title=task.title, seconds=round(seconds, 3))
            return Outcome(kind="done", seconds=seconds)
    except OSError as error:
        return Outcome(kind="stopped", reason=str(error))


def _writer(task: Task, store: Store, local_rank: int) -> Callable[[Path], None]:
    torch.set_num_threads(task.baseline.threads)
    # whatever draws without a generator of its own must not depend on what this process did before
    torch.manual_seed(task.baseline.seed or 0 if task.cell is None else task.cell.seed)
    device = pick_device(task.baseline.device, local_rank)
    if task.cell is None:
        return _make_baseline(task.baseline, store, device)
    return _make_cell(task.baseline, task.cell, store, device)


def _make_cell(baseline: BaselineTask, task: CellTask, store: Store, device: torch.device) -> Callable[[Path], None]:
    store.appears("baselines", baseline.key)
    model, observed = _ready(str(store.path("baselines", baseline.key)), baseline.builder)
    splits = _splits(baseline.data)
    _check_circumstances(baseline, splits)
    cell = run_cell(
        model,
        task.spec,
        mode=task.mode,
        train_set=splits.train,
        test_set=splits.compared(baseline.test_split),
        recipe=task.recipe,
        seed=task.seed,
        observed=observed,
        calibration_images=task.calibration_images,
        max_images=baseline.test_images,
        batch_size=baseline.batch_size,
        cost_images=_cost_images(baseline),
        baseline_cost=_cost_of(baseline, model, splits),
        fast=task.fast,
        device=device,
        folder=store.training(task.key) if task.mode == "qat" else None,
    )
    images, _ = next(iter(splits.train.batches(min(_SHOWN_IMAGES, len(splits.train)))))
    shown = distributions(model, cell.model, images)

    def write(part: Path) -> None:
        row = {**cell.row, "cell": task.key, "baseline": baseline.name}
        _write_json(part / "row.json", row)
        cell.comparison.to_json(part / "comparison.json")
        cell.comparison.quantized.save(part / "counts.safetensors")
        _write_json(part / "distributions.json", shown)
        _write_json(part / "history.json", msgspec.to_builtins(cell.history))
        _write_json(part / "environment.json", environment(device))
        if task.keep_model:
            # without the time it took, so that equal cells have equal files
            _save(part / "model.safetensors", cell.model, baseline.builder, {"row": {**row, "seconds": None}})

    return write


def _make_baseline(task: BaselineTask, store: Store, device: torch.device) -> Callable[[Path], None]:
    splits = _splits(task.data)
    _check_circumstances(task, splits)
    note: dict[str, Any] = {}
    about: dict[str, Any] = {"history": [], "accuracy": {"valid": None}}
    if task.model is not None:
        assert task.train is not None
        found = train_baseline(task.model, splits, task.train, folder=store.training(task.key), device=device)
        assert found is not None
        model = found.model
        known = found.to_dict()
        note = {"recipe": msgspec.to_builtins(task.train), "seed": task.seed, "epoch": found.epoch}
        about = {"history": known["history"], "accuracy": {"valid": known["valid"], "test": known["test"]}}
    else:
        model, note = given_model(task)
        _check_same("the network", task, task.identity, identity_of(model, task.builder))
        about["accuracy"] = {"valid": (note.get("accuracy") or {}).get("valid")}
    test_set = splits.compared(task.test_split)
    observed = observe(model, test_set, max_images=task.test_images, batch_size=task.batch_size, device=device)
    about["accuracy"][task.test_split] = {"accuracy": observed.accuracy, "n": len(observed.labels)}
    document = {
        "name": task.name,
        "seed": task.seed,
        "model": model.__dict__.get("config"),
        "data": {"name": task.data.name, "train_images": len(splits.train), "fingerprints": splits.fingerprints()},
        "environment": environment(device),
        **about,
    }

    def write(part: Path) -> None:
        _save(part / "model.safetensors", model, task.builder, note)
        observed.save(part)
        _write_json(part / "baseline.json", document)

    return write


def _check_circumstances(task: BaselineTask, splits: Splits) -> None:
    """Whether this worker computes what the key names."""
    _check_same("the versions", task, task.versions, versions())
    _check_same("the images", task, task.fingerprints, fingerprints_of(splits, task.test_split))


def _check_same(what: str, task: BaselineTask, planned: Any, found: Any) -> None:
    # a plan travels as JSON, in which tuples are lists
    planned, found = (msgspec.json.encode(value, order="deterministic") for value in (planned, found))
    if planned != found:
        raise Changed(
            f"{what} of baseline {task.name!r} must be what the sweep was planned with, {_short(planned)}, this worker "
            f"finds {_short(found)}; put back what was changed, or plan anew by giving the command again"
        )


def _short(value: bytes) -> str:
    text = value.decode()
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _cost_images(task: BaselineTask) -> int:
    return min(COST_IMAGES, task.test_images or COST_IMAGES)


_COSTS: dict[str, Cost | None] = {}
"""Key of the baseline of the cells at hand -> its cost."""


def _cost_of(baseline: BaselineTask, model: nn.Module, splits: Splits) -> Cost | None:
    """Measured once for all cells of a baseline; None where its operations cannot be followed."""
    if baseline.key not in _COSTS:
        _COSTS.clear()
        test_set = splits.compared(baseline.test_split)
        try:
            _COSTS[baseline.key] = measure_cost(model, test_set, max_images=_cost_images(baseline))
        except ModelError:
            _COSTS[baseline.key] = None
    return _COSTS[baseline.key]


@lru_cache(maxsize=2)
def _ready(folder: str, builder: str | None) -> tuple[nn.Module, Observation]:
    """A finished baseline; cells leave it as it is."""
    file = Path(folder) / "model.safetensors"
    model, _ = load_model(file) if builder is None else open_named(builder, file)
    return model, Observation.load(folder)


def _save(path: Path, model: nn.Module, builder: str | None, note: dict[str, Any]) -> None:
    if builder is None:
        save_model(path, model, note)
    else:
        save_named(path, model, builder, note)


def _splits(data: DataSettings) -> Splits:
    return _read_splits(msgspec.json.encode(data))


@lru_cache(maxsize=2)
def _read_splits(data: bytes) -> Splits:
    return load_splits(msgspec.json.decode(data, type=DataSettings))


def _failed(task: Task, store: Store, error: Exception, seconds: float) -> Outcome:
    # isofire's own errors are whole sentences, those of others often but a word
    told = isinstance(error, IsofireError) and str(error)
    reason = told or f"{type(error).__name__}: {error}".removesuffix(": ")
    record = {
        "title": task.title,
        "type": type(error).__name__,
        "reason": reason,
        "traceback": "".join(traceback.format_exception(error)),
        "seconds": round(seconds, 3),
    }
    store.fail(task.key, record)
    store.note("failed", task.key, title=task.title, reason=reason)
    return Outcome(kind="failed", reason=reason, seconds=seconds)


def _is_full(error: BaseException | None) -> bool:
    """Whether an error comes from a disk or quota that is full, in whatever it was wrapped."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        error = error.__cause__
    return False


def _write_json(path: Path, value: Any) -> None:
    write_text(path, to_json_text(value))
