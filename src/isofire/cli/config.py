"""Configuration files: one TOML table a concern, unknown keys refused with their place, `--set` on top."""

from __future__ import annotations

import difflib
import inspect
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, get_args

import msgspec
from msgspec import Meta

from isofire.errors import SpecError
from isofire.models.build import BUILDERS
from isofire.quantization import CALIBRATION_IMAGES
from isofire.spec import MembraneSetting, QuantSpec, Rule, WeightSetting, read_toml
from isofire.study import DataSettings
from isofire.training import Recipe


class CalibrationSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How many training images batch-norm statistics and membrane ranges are estimated on."""

    images: Annotated[int, Meta(ge=1)] = CALIBRATION_IMAGES


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
    seed: Annotated[int, Meta(ge=0)] = 0
    out: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values, complete with defaults."""
        return msgspec.to_builtins(self)


def read_config(path: Path, settings: Sequence[str] = (), seed: int | None = None) -> RunConfig:
    """Read a file, lay `--set` settings over it, and check everything.

    Parameters
    ----------
    settings
        Such as "train.epochs=2": a dotted key and a TOML value; what is no TOML value is text.
    seed
        Replaces the file's.

    Raises
    ------
    SpecError
        If the file cannot be read, or a key or value is not valid; says where and what is meant.
    """
    return parse_config(read_toml(path), str(path), settings, seed)


def parse_config(
    values: Mapping[str, Any], source: str, settings: Sequence[str] = (), seed: int | None = None
) -> RunConfig:
    """Like `read_config`, from plain values; `source` names them in errors."""
    merged: dict[str, Any] = _copied(values)
    places = _Places(source)
    for setting in settings:
        key, value = parse_setting(setting)
        _insert(merged, key, value)
        places.overrides.append(key)
    if seed is not None:
        merged["seed"] = seed
    places.check_keys(merged, RunConfig.__struct_fields__, "")
    parts: dict[str, Any] = {
        "calibration": places.convert(merged.get("calibration", {}), CalibrationSettings, "calibration"),
        **{key: places.convert(merged[key], kind, key) for key, kind in _SCALARS.items() if key in merged},
    }
    if "model" in merged:
        parts["model"] = _model(merged["model"], places)
    if "data" in merged:
        parts["data"] = places.convert(merged["data"], DataSettings, "data")
    for key in ("train", "qat"):
        if key in merged:
            parts[key] = _recipe(merged[key], key, parts.get("seed", 0), places)
    if "quant" in merged:
        parts["quant"] = _spec(merged["quant"], places)
    return RunConfig(**parts)


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


def parse_setting(text: str) -> tuple[str, Any]:
    """Split "a.b=value" into its key and its value, read as TOML where it is TOML, else taken as text.

    Raises
    ------
    SpecError
        If there is no key and value.

    Examples
    --------
    >>> parse_setting("train.lr=0.1"), parse_setting("data.name=digits")
    (('train.lr', 0.1), ('data.name', 'digits'))
    """
    key, equals, value = text.partition("=")
    key = key.strip()
    if not equals or not all(key.split(".")):
        raise SpecError(f"--set takes key=value, such as train.epochs=2, got {text!r}")
    try:
        found = tomllib.loads(f"value = {value}")
    except tomllib.TOMLDecodeError:
        return key, value.strip()
    return key, found["value"] if set(found) == {"value"} else value.strip()


_SCALARS = {"seed": Annotated[int, Meta(ge=0)], "out": str}
_EXAMPLES = {
    "model": 'for instance: [model] builder = "sew_resnet8"',
    "data": 'for instance: [data] name = "digits"',
    "train": "for instance: [train] epochs = 20, lr = 0.1",
    "qat": "for instance: [qat] epochs = 5, lr = 0.02",
    "quant": 'for instance: [quant.weights] method = "lsq", bits = 4',
}


class _Places:
    """Where each key came from, for messages."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.overrides: list[str] = []

    def of(self, key: str) -> str:
        """`--set key` if that brought it, else the file, with the settings that changed parts of it."""
        for override in self.overrides:
            if f"{key}.".startswith(f"{override}."):
                return f"--set {override}"
        within = [f" with --set {override}" for override in self.overrides if override.startswith(f"{key}.")]
        return self.source + "".join(within)

    def check_keys(self, table: Any, allowed: Iterable[str], path: str) -> None:
        if not isinstance(table, dict):
            raise SpecError(f"{path} must be a table, got {table!r} ({self.of(path)})")
        names = list(allowed)
        for key in table:
            if key not in names:
                full = f"{path}.{key}" if path else key
                close = difflib.get_close_matches(key, names, n=1)
                hint = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(names)}"
                raise SpecError(f"unknown key {full!r} ({self.of(full)}); {hint}")

    def convert(self, value: Any, kind: Any, path: str) -> Any:
        if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
            self.check_keys(value, kind.__struct_fields__, path)
        try:
            return msgspec.convert(value, kind)
        except msgspec.ValidationError as error:
            if isinstance(error.__cause__, SpecError):
                raise self.placed(error.__cause__, path) from error
            reason, _, inner = str(error).partition(" - at `$")
            full = path + inner.rstrip("`")
            if "missing required field" in reason:
                raise SpecError(f"{full} needs the key {reason.split()[-1]} ({self.of(full)})") from error
            rule = reason.partition(", got")[0].lower()
            raise SpecError(f"{full}: {rule}, got {_found(value, inner)} ({self.of(full)})") from error

    def placed(self, error: SpecError, path: str) -> SpecError:
        return SpecError(f"{error} ([{path}], {self.of(path)})")


def _found(value: Any, path: str) -> str:
    for name in [part for part in path.rstrip("`").split(".") if part]:
        if not isinstance(value, dict) or name not in value:
            return "nothing"
        value = value[name]
    return repr(value)


def _insert(values: dict[str, Any], key: str, value: Any) -> None:
    *path, last = key.split(".")
    table = values
    for name in path:
        table = table.setdefault(name, {})
        if not isinstance(table, dict):
            raise SpecError(f"--set {key} goes into {name!r}, which is no table; set {name!r} as a whole")
    table[last] = value


def _copied(value: Any) -> Any:
    return {key: _copied(item) for key, item in value.items()} if isinstance(value, Mapping) else value


def _model(table: Any, places: _Places) -> dict[str, Any]:
    if not isinstance(table, dict) or table.get("builder") not in BUILDERS:
        got = table.get("builder") if isinstance(table, dict) else table
        place = places.of("model.builder")
        raise SpecError(f"model.builder must be one of {', '.join(BUILDERS)}, got {got!r} ({place})")
    takes = inspect.signature(BUILDERS[table["builder"]]).parameters
    places.check_keys(table, ("builder", *takes), "model")
    return table


def _recipe(table: Any, path: str, seed: int, places: _Places) -> Recipe:
    places.check_keys(table, Recipe.__struct_fields__, path)
    if "seed" in table:
        raise SpecError(
            f"{path}.seed has no place here ({places.of(f'{path}.seed')}); one `seed` at the top of the file is for all"
        )
    try:
        return Recipe.from_mapping({**table, "seed": seed})
    except SpecError as error:
        raise places.placed(error, path) from error


def _spec(table: Any, places: _Places) -> QuantSpec:
    places.check_keys(table, QuantSpec.__struct_fields__, "quant")
    _check_targets(table, "quant", places)
    rules = table.get("rules", [])
    if not isinstance(rules, list):
        raise SpecError(f"quant.rules must be a list of tables, got {rules!r} ({places.of('quant.rules')})")
    for i, rule in enumerate(rules):
        places.check_keys(rule, Rule.__struct_fields__, f"quant.rules[{i}]")
        _check_targets(rule, f"quant.rules[{i}]", places)
    try:
        return QuantSpec.from_dict(table)
    except SpecError as error:
        raise places.placed(error, "quant") from error


def _check_targets(table: dict[str, Any], path: str, places: _Places) -> None:
    for target, kinds in (("weights", get_args(WeightSetting)), ("membrane", (MembraneSetting,))):
        setting = table.get(target)
        if not isinstance(setting, dict):
            continue
        methods = {str(kind.__struct_config__.tag): kind for kind in kinds}
        method = setting.get("method", "uniform" if target == "membrane" else None)
        if method not in methods:
            place = f"{path}.{target}.method"
            raise SpecError(f"{place} must be one of {', '.join(methods)}, got {method!r} ({places.of(place)})")
        places.check_keys(setting, ("method", *methods[method].__struct_fields__), f"{path}.{target}")
