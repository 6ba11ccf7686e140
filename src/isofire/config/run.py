"""What `isofire train`, `quantize` and their like read: one TOML table per concern, `--set` on top."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from isofire.config.data import DataSettings
from isofire.config.packaged import read_located
from isofire.config.source import merge_settings
from isofire.config.tables import lay_data, read_recipe, read_table
from isofire.errors import SpecError
from isofire.limits import Count, Seed
from isofire.quantization import CALIBRATION_IMAGES
from isofire.quantization.presets import preset as spec_of_preset
from isofire.spec import QuantSpec
from isofire.training import Recipe


class CalibrationSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How many training images batch-norm statistics and membrane ranges are estimated on."""

    images: Count = CALIBRATION_IMAGES


class RunConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a command works on; each command says which parts it needs.

    Parameters
    ----------
    model
        Builder and arguments, for `isofire.models.build`.
    data
        The data set and how it is cut.
    train, qat
        Recipes of the baseline's training and of quantization-aware training. Their seed is `seed`.
    quant
        What to quantize.
    calibration
        What to estimate statistics and ranges on.
    seed
        Decides initial weights, training, and which images calibrate.
    out
        Folder for results.
    """

    model: dict[str, Any] | None = None
    data: DataSettings | None = None
    train: Recipe | None = None
    quant: QuantSpec | None = None
    qat: Recipe | None = None
    calibration: CalibrationSettings = CalibrationSettings()
    seed: Seed = 0
    out: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values, complete with defaults."""
        return msgspec.to_builtins(self)


def read_config(
    path: Path | None,
    settings: Sequence[str] = (),
    seed: int | None = None,
    allow_code: bool = False,
    preset: str | None = None,
    data: Mapping[str, Any] | None = None,
) -> RunConfig:
    """Read a file, lay `--set` settings over it, and check everything.

    Parameters
    ----------
    path
        None: there is no file, all comes from the preset, the settings and `data`.
    settings
        Such as "train.epochs=2": a dotted key and a TOML value; what is no TOML value is text.
    seed
        Replaces the file's.
    allow_code
        Whether the file may name code of the user's own; see `ConfigSource.check_code`.
    preset
        Name of a spec that is the table [quant], see `isofire.quantization.presets`.
    data
        What --data, --root and --download say, see `isofire.config.tables.lay_data`.

    Raises
    ------
    SpecError
        If the file cannot be read, or a key or value is not valid; says where and what is meant.
    """
    values = {} if path is None else read_located(path)
    if preset is not None:
        if "quant" in values:
            raise SpecError(f"--preset {preset} and the table [quant] of {path} both say what to quantize; drop one")
        values = {**values, "quant": spec_of_preset(preset)}
    source = str(path or (f"--preset {preset}" if preset else "the command line"))
    return parse_config(values, source, settings, seed, allow_code, data)


def parse_config(
    values: Mapping[str, Any],
    source: str,
    settings: Sequence[str] = (),
    seed: int | None = None,
    allow_code: bool = False,
    data: Mapping[str, Any] | None = None,
) -> RunConfig:
    """Like `read_config`, from plain values; `source` names them in errors."""
    merged, places = merge_settings(values, settings, source, allow_code)
    lay_data(merged, data or {}, places)
    if seed is not None:
        merged["seed"] = seed
    if other := [f"[[{key}]]" for key in ("baselines", "cells") if key in merged]:
        raise SpecError(f"{source} is a sweep's file, with {', '.join(other)}; give it to isofire sweep")
    start = places.convert(merged.get("seed", 0), Seed, "seed")
    recipe = partial(read_recipe, seed=start)
    return read_table(RunConfig, merged, "", places, {"train": recipe, "qat": recipe})


def require(config: RunConfig, *parts: str) -> None:
    """Refuse a configuration that lacks a table which the command needs.

    Raises
    ------
    SpecError
        If one of `parts` is missing.
    """
    for part in parts:
        if getattr(config, part) is None:
            raise SpecError(f"this command needs a [{part}] table in the configuration; {_EXAMPLES[part]}")


_EXAMPLES = {
    "model": 'for instance: [model] builder = "sew_resnet8"',
    "data": 'for instance: [data] name = "digits"; or give --data NAME, and --root DIR where the set is a folder; '
    "--data package.module:loader is a function of yours",
    "train": "for instance: [train] epochs = 20, lr = 0.1",
    "qat": "for instance: [qat] epochs = 5, lr = 0.02",
    "quant": 'for instance: [quant.weights] method = "lsq", bits = 4',
}
