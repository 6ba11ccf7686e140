"""What a sweep runs: baselines, seeds, and groups of cells along axes, from one TOML file."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from isofire.config.cells import CellGroup, Exclusion
from isofire.config.data import DataSettings
from isofire.config.packaged import located, read_located
from isofire.config.source import ConfigSource, merge_settings
from isofire.config.tables import lay_data, read_table
from isofire.errors import SpecError
from isofire.firing.evidence.outcome import Margins
from isofire.limits import Count, Seed, Threads
from isofire.models.pretrained import REGISTER
from isofire.quantization import CALIBRATION_IMAGES
from isofire.training import Recipe


class BaselineSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A full-precision network: one of `file`, `pretrained`, `model` with `train`, or `builder`.

    Parameters
    ----------
    name
        For the column `baseline`.
    file
        A model.safetensors that isofire wrote.
    pretrained
        A name for `isofire.models.pretrained`.
    builder
        "package.module:function" of the user's own code, see `isofire.models.open_named`; `file` then has its weights.
    model, train
        Builder and recipe of a network that the sweep trains first, once for every seed.
    data
        Another data set than the sweep's.
    """

    name: Annotated[str, Meta(min_length=1)]
    file: str | None = None
    pretrained: str | None = None
    builder: str | None = None
    model: dict[str, Any] | None = None
    train: Recipe | None = None
    data: DataSettings | None = None


class Sweep(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A whole sweep.

    Parameters
    ----------
    name
        What tables and reports call it.
    data
        The data set and how it is cut.
    baselines
        The full-precision networks.
    cells
        Groups of cells, each for every baseline and seed.
    seeds
        Decide which images calibrate, the training of quantized networks, and of baselines that the sweep trains.
    qat
        Recipe of every quantization-aware cell.
    exclude
        Combinations to leave out of all groups.
    test_split
        What cells are compared on: "test", or "valid" while choices are being made.
    test_images
        Compare on the first so many images; None: all.
    calibration_images
        For batch-norm statistics and membrane ranges.
    batch_size
        Images at once in a comparison.
    threads
        CPU threads of a cell. Part of what decides its bits, so it does not follow from the number of workers.
    fast
        Count the spikes of post-training cells by look-up, as in `isofire.study.run_cell`.
    keep_models
        Store the quantized networks too.
    margins
        How much a quantized network may differ and still keep accuracy and firing; tables and reports judge by it.
    """

    name: Annotated[str, Meta(min_length=1)]
    data: DataSettings
    baselines: tuple[BaselineSettings, ...]
    cells: tuple[CellGroup, ...]
    seeds: tuple[Seed, ...] = (0,)
    qat: Recipe | None = None
    exclude: tuple[Exclusion, ...] = ()
    test_split: Literal["test", "valid"] = "test"
    test_images: Count | None = None
    calibration_images: Count = CALIBRATION_IMAGES
    batch_size: Count = 128
    threads: Threads = 1
    fast: bool = True
    keep_models: bool = True
    margins: Margins = Margins()

    def to_dict(self) -> dict[str, Any]:
        """Plain values, complete with defaults."""
        return msgspec.to_builtins(self)


def read_sweep(
    path: str | os.PathLike[str],
    settings: Sequence[str] = (),
    baseline: str | None = None,
    builder: str | None = None,
    data: Mapping[str, Any] | None = None,
    allow_code: bool = False,
) -> Sweep:
    """Read a sweep's file and check all of it.

    Parameters
    ----------
    settings
        Such as "data.root=DIR", laid over the file.
    baseline, builder
        A file, or a network of the user's own code with or without a file for its weights, in place of the one baseline
        that the sweep's file names; it may name none.
    data
        What --data, --root and --download say, see `isofire.config.tables.lay_data`.
    allow_code
        Whether the file may name builders and loaders of the user's own; see `ConfigSource.check_code`.

    Raises
    ------
    SpecError
        If a key is unknown, a value out of range, an exclusion matches nothing; says where.
    """
    file = located(path)
    merged, places = merge_settings(read_located(path), settings, str(path), allow_code)
    lay_data(merged, data or {}, places)
    if baseline is not None or builder is not None:
        merged["baselines"] = [_given(merged.get("baselines", [{}]), baseline, builder, places)]
    sweep = _convert(merged, places)
    _check(sweep, places)
    return msgspec.structs.replace(sweep, baselines=tuple(_located(item, file.parent) for item in sweep.baselines))


def _given(named: Any, file: str | None, builder: str | None, places: ConfigSource) -> dict[str, Any]:
    """The table of a baseline from the command line, under the name that the file has for it."""
    if not isinstance(named, list) or len(named) != 1 or not isinstance(named[0], dict):
        count = len(named) if isinstance(named, list) else repr(named)
        raise SpecError(
            f"{'--baseline' if builder is None else '--model'} stands in for one baseline, {places.source} names "
            f"{count}; edit the file"
        )
    places.check_keys(named[0], BaselineSettings.__struct_fields__, "baselines[0]")
    places.options.append("baselines")
    name = named[0].get("name") or ("baseline" if builder is None else builder.rpartition(":")[2])
    if any(str(given).endswith(".nir") for given in (file, builder)):
        raise SpecError(
            "a sweep takes no .nir file itself; name a function of yours, --model package.module:builder, that returns "
            "isofire.nir.read(FILE)"
        )
    if file in REGISTER and not os.path.exists(file):
        if builder is not None:
            raise SpecError(
                f"{file} is a pretrained network, not weights for {builder}, and there is no file of that name; give "
                f"--baseline {file} without --model, or name a file by --weights"
            )
        return {"name": name, "pretrained": file}
    weights = {} if file is None else {"file": os.path.abspath(file)}
    return {"name": name, **weights, **({} if builder is None else {"builder": builder})}


def _convert(merged: dict[str, Any], places: ConfigSource) -> Sweep:
    other = [f"[{key}]" for key in ("model", "train", "quant", "calibration") if key in merged]
    if other and "cells" not in merged:
        raise SpecError(
            f"{places.source} is a configuration for isofire train or quantize, with {', '.join(other)}; a sweep's "
            "file has [[baselines]] and [[cells]] instead, see docs/sweep.md"
        )
    for key in ("name", "data", "baselines", "cells"):
        if key not in merged:
            raise SpecError(f"a sweep needs {_NEEDED[key]} ({places.source})")
    return read_table(Sweep, merged, "", places, {"baselines": _baselines})


def _baselines(tables: Any, path: str, places: ConfigSource) -> tuple[BaselineSettings, ...]:
    if not isinstance(tables, list) or not tables:
        raise SpecError(f"baselines must be a list of tables [[baselines]], got {tables!r} ({places.source})")
    return tuple(_baseline(item, f"{path}[{i}]", places) for i, item in enumerate(tables))


def _baseline(table: Any, path: str, places: ConfigSource) -> BaselineSettings:
    found = read_table(BaselineSettings, table, path, places)
    if found.builder is not None:
        places.check_code(found.builder, f"{path}.builder")
    if (found.model is None) != (found.train is None):
        raise SpecError(f"{path} needs both model and train to be trained by the sweep ({places.of(path)})")
    weights = None if found.builder is not None else found.file
    if sum(item is not None for item in (weights, found.pretrained, found.builder, found.model)) != 1:
        raise SpecError(f"{path} needs just one of file, pretrained, builder, or model with train ({places.of(path)})")
    return found


def _check(sweep: Sweep, places: ConfigSource) -> None:
    names = [item.name for item in sweep.baselines]
    if len(set(names)) < len(names):
        raise SpecError(f"baselines must have different names, got {', '.join(names)} ({places.source})")
    if not sweep.seeds or len(set(sweep.seeds)) < len(sweep.seeds):
        raise SpecError(f"seeds must be one or more different numbers, got {list(sweep.seeds)} ({places.of('seeds')})")
    if sweep.qat is None and any("qat" in group.mode for group in sweep.cells):
        raise SpecError(f"cells of mode 'qat' train, so the sweep needs a table [qat] ({places.source})")
    held_out = all((item.data or sweep.data).valid for item in sweep.baselines)
    if sweep.test_split == "valid" and not held_out:
        raise SpecError(f"test_split 'valid' needs images held out; set data.valid to their number ({places.source})")


def _located(item: BaselineSettings, folder: Path) -> BaselineSettings:
    """A file is meant relative to the folder of the TOML that names it."""
    if item.file is None:
        return item
    if item.file in REGISTER and not (folder / item.file).exists():
        instead = "file" if item.builder is None else "builder and file"
        raise SpecError(
            f"baselines {item.name!r}: there is no file {item.file}, that is a pretrained network: write pretrained = "
            f'"{item.file}" in place of {instead}'
        )
    return msgspec.structs.replace(item, file=os.path.abspath(folder / item.file))


_NEEDED = {
    "name": 'a name, for instance: name = "bits"',
    "data": 'a table [data], for instance: [data] name = "digits"',
    "baselines": 'a table [[baselines]], for instance: [[baselines]] name = "sew8" file = "model.safetensors"; or give '
    "--baseline FILE or --model package.module:builder",
    "cells": 'a table [[cells]], for instance: [[cells]] bits = [2, 4] weights = { method = "lsq" }',
}
