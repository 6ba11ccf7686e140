"""From a sweep's file to its tasks: which baselines and cells there are, each under a hash of all that decides it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import msgspec
import torch

from isofire.config import BaselineSettings, DataSettings, Sweep
from isofire.config.cells import Combination, Exclusions, combinations
from isofire.errors import SpecError
from isofire.json_text import to_json_text
from isofire.quantization import labels_of
from isofire.study import CONTROLS, Splits, environment, load_splits
from isofire.study.environment import version
from isofire.sweep.given import given_model, identity_of
from isofire.sweep.task import BaselineTask, CellTask, Task, absolute
from isofire.training import Recipe


@dataclass(frozen=True)
class Plan:
    """All tasks of a sweep.

    Attributes
    ----------
    sweep
        What was asked for.
    baselines, cells
        In the order of the file; every cell's baseline is among the baselines.
    about
        The environment that the sweep was planned in.
    left_out
        Groups of cells of which the exclusions leave nothing.
    """

    sweep: Sweep
    baselines: tuple[Task, ...]
    cells: tuple[Task, ...]
    about: dict[str, Any]
    left_out: tuple[str, ...] = ()

    def to_json(self) -> str:
        """`plan.json`; paths of this machine are left out."""
        cells = [(task.baseline, task.cell) for task in self.cells if task.cell is not None]
        document = {
            "version": 1,
            "name": self.sweep.name,
            "config": _without_places(self.sweep.to_dict()),
            "environment": self.about,
            "baselines": [
                {"key": task.baseline.key, "name": task.baseline.name, "seed": task.baseline.seed}
                for task in self.baselines
            ],
            "cells": [
                {
                    "key": cell.key,
                    "title": cell.title,
                    "baseline": baseline.key,
                    "seed": cell.seed,
                    "mode": cell.mode,
                    "spec": None if cell.spec is None else cell.spec.to_dict(),
                }
                for baseline, cell in cells
            ],
        }
        return to_json_text(document)


def make_plan(sweep: Sweep, folder: str | os.PathLike[str], device: str = "cpu") -> Plan:
    """Look at data and baselines, and name every task.

    Parameters
    ----------
    folder
        Where results go.
    device
        "cpu" or "cuda".

    Raises
    ------
    SpecError
        If an exclusion matches nothing, a combination is no valid spec, or no cell is left.
    DataError, CheckpointError, ModelError
        If data or a baseline's file cannot be read, or the baseline is quantized.
    """
    place = absolute(folder)
    chosen, left_out = _combinations(sweep)
    prints: dict[bytes, dict[str, Any]] = {}
    baselines: dict[str, Task] = {}
    cells: dict[str, Task] = {}
    for settings in sweep.baselines:
        data = settings.data or sweep.data
        encoded = msgspec.json.encode(data)
        if encoded not in prints:
            prints[encoded] = fingerprints_of(load_splits(data), sweep.test_split)
        found = prints[encoded]
        # one that the sweep trains is what its recipe says
        identity = None if settings.model is not None else identity_of(given_model(settings)[0], settings.builder)
        for seed in sweep.seeds:
            made = _baseline(settings, sweep, data, seed, device, identity, found)
            known = baselines.setdefault(made.key, Task(folder=place, baseline=made))
            if known.baseline.name != made.name:
                raise SpecError(
                    f"baselines must differ in more than their names, {known.baseline.name!r} and {made.name!r} are "
                    "the same network on the same images; leave one out"
                )
            for combination in chosen:
                cell = _cell(combination, sweep, made, seed)
                cells.setdefault(cell.key, Task(folder=place, baseline=made, cell=cell))
    # a machine that only hands out work may have no such device; cells store their own environment
    here = device if torch.cuda.is_available() else "cpu"
    return Plan(sweep, tuple(baselines.values()), tuple(cells.values()), environment(here), left_out)


def _combinations(sweep: Sweep) -> tuple[list[Combination], tuple[str, ...]]:
    """All points, and the groups that have none."""
    everywhere = Exclusions(sweep.exclude, "exclude")
    found: list[Combination] = []
    left_out: list[str] = []
    for i, group in enumerate(sweep.cells):
        here, before = Exclusions(group.exclude, f"cells[{i}].exclude"), len(found)
        for combination in combinations(group, f"cells[{i}]"):
            # both are asked, so that both remember
            excluded = [here.match(combination.values), everywhere.match(combination.values)]
            if not any(excluded):
                found.append(combination)
        here.check()
        if len(found) == before:
            left_out.append(f"cells[{i}]")
    everywhere.check()
    if not found:
        raise SpecError("a sweep needs at least one cell, all are excluded; leave an exclusion out")
    return found, tuple(left_out)


def versions() -> dict[str, str | None]:
    """Of what decides results."""
    return {name: version(name) for name in ("isofire", "torch")}


def fingerprints_of(splits: Splits, test_split: str) -> dict[str, Any]:
    """Of all images that a sweep uses."""
    if test_split == "test":
        _ = splits.test
    return splits.fingerprints()


def _baseline(
    settings: BaselineSettings,
    sweep: Sweep,
    data: DataSettings,
    seed: int,
    device: str,
    identity: Any,
    fingerprints: dict[str, Any],
) -> BaselineTask:
    train = None if settings.train is None else msgspec.structs.replace(settings.train, seed=seed)
    task = BaselineTask(
        key="", name=settings.name, seed=None if train is None else seed,
        file=settings.file, pretrained=settings.pretrained, builder=settings.builder, model=settings.model,
        train=train, data=data,
        test_split=sweep.test_split, test_images=sweep.test_images, batch_size=sweep.batch_size, threads=sweep.threads,
        device=device, identity=identity, fingerprints=fingerprints, versions=versions(),
    )  # fmt: skip
    decides = [
        *task.versions.values(), identity, settings.model, train and train.to_dict(), _data(data), fingerprints,
        task.test_split, task.test_images, task.batch_size, task.threads, device,
    ]  # fmt: skip
    return msgspec.structs.replace(task, key=_hash(decides))


def _cell(combination: Combination, sweep: Sweep, baseline: BaselineTask, seed: int) -> CellTask:
    mode, spec = combination.mode, combination.spec
    recipe = None
    if mode == "qat":
        assert sweep.qat is not None
        losses = sweep.qat.losses if combination.losses is None else combination.losses
        recipe = Recipe.from_mapping({**msgspec.to_builtins(sweep.qat), "seed": seed, "losses": dict(losses)})
    plain = None if spec is None else spec.to_dict()
    decides = [baseline.key, mode, plain, seed, recipe and recipe.to_dict(), sweep.calibration_images]
    if not sweep.fast and mode == "ptq" and spec is not None:
        decides.append("float32")
    return CellTask(
        key=_hash(decides), title=_title(combination, baseline.name, seed, recipe), mode=mode, seed=seed, spec=spec,
        recipe=recipe, calibration_images=sweep.calibration_images, keep_model=sweep.keep_models,
        fast=sweep.fast,
    )  # fmt: skip


def _title(combination: Combination, baseline: str, seed: int, recipe: Recipe | None) -> str:
    labels = labels_of(combination.spec)
    if combination.spec is None:
        labels = {**labels, "method": CONTROLS[combination.mode], "bits": None}
    per = None if labels["granularity"] in _USUAL else f"per {labels['granularity']}"
    bits = None if labels["bits"] is None else f"{labels['bits']} bits"
    parts: Sequence[Any] = (
        None if combination.spec is None else labels["target"], labels["method"], bits, labels["range"], per,
        labels["placement"], labels["options"], *([] if recipe is None else recipe.labels()),
        combination.mode, f"seed {seed}", baseline,
    )  # fmt: skip
    return " ".join(str(part) for part in parts if part is not None)


_USUAL = (None, "channel", "layer", "channel | layer")
"""Granularities that a title leaves out."""


def _data(data: DataSettings) -> dict[str, Any]:
    """Without the place where the data lie, which decides nothing."""
    return msgspec.to_builtins(data) | {"root": None, "download": False}


def _without_places(config: dict[str, Any]) -> dict[str, Any]:
    def tidy(data: dict[str, Any] | None) -> dict[str, Any] | None:
        return None if data is None else data | {"root": None, "download": False}

    baselines = [
        item | {"data": tidy(item["data"]), "file": item["file"] and PurePath(item["file"]).name}
        for item in config["baselines"]
    ]
    return config | {"data": tidy(config["data"]), "baselines": baselines}


def _hash(decides: Any) -> str:
    return hashlib.sha256(msgspec.json.encode(decides, order="deterministic")).hexdigest()[:16]
