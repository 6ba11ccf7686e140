"""The tables of a configuration file that several kinds of files share: [model], [data], [train], [qat], [quant]."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Mapping
from typing import Any

from isofire.config_source import ConfigSource
from isofire.errors import SpecError
from isofire.models import is_named
from isofire.models.build import BUILDERS
from isofire.quantizers import MEMBRANES, WEIGHTS
from isofire.spec import MEMBRANE_DEFAULT, QuantSpec, Rule
from isofire.study.splits import DataSettings
from isofire.training import Recipe

_LOG = logging.getLogger(__name__)


def lay_data(merged: dict[str, Any], given: Mapping[str, Any], places: ConfigSource) -> None:
    """Lay what the command line says of data over the table [data]: it wins, and what it replaces is told.

    How images are cut (valid, train_images, test_images, seed) stays as the table says. `options` belong to the set
    that the table names, so they go with it; a loader of the user's own takes no folder either.

    Parameters
    ----------
    merged
        All tables; changed in place.
    given
        Of `name`, `root` and `download`, what was given as --data, --root and --download.

    Raises
    ------
    SpecError
        If a folder is given and nothing names the data.
    """
    table = merged.get("data", {})
    if not given or not isinstance(table, dict):
        return
    name = given.get("name", table.get("name"))
    if name is None:
        raise SpecError("--root and --download say where data lie, not which; give --data NAME too")
    kept = dict(table)
    if name != table.get("name"):
        kept.pop("options", None)
        if is_named(name):
            kept = {key: value for key, value in kept.items() if key not in ("root", "download")}
    for key, option in (("name", "--data"), ("root", "--root")):
        if key in given and table.get(key) not in (None, given[key]):
            # a warning, since that is what Python shows where nobody set up logging
            place = places.of(f"data.{key}")
            _LOG.warning("%s %s is used in place of data.%s = %r (%s)", option, given[key], key, table[key], place)
    merged["data"] = {**kept, **given}
    places.options += [f"data.{key}" for key in given]


def read_model(table: Any, path: str, places: ConfigSource) -> dict[str, Any]:
    """A builder and its arguments.

    Raises
    ------
    SpecError
        If there is no such builder, or it does not take an argument; says where.
    """
    got = table.get("builder") if isinstance(table, dict) else table
    if not isinstance(table, dict) or not isinstance(got, str) or got not in BUILDERS:
        place = places.of(f"{path}.builder")
        raise SpecError(f"{path}.builder must be one of {', '.join(BUILDERS)}, got {got!r} ({place})")
    takes = inspect.signature(BUILDERS[table["builder"]]).parameters
    places.check_keys(table, ("builder", *takes), path)
    return table


def read_data(table: Any, path: str, places: ConfigSource) -> DataSettings:
    """A data set and how it is cut.

    Raises
    ------
    SpecError
        If a key is unknown or a value out of range, or the file names code that it may not; says where.
    """
    found = places.convert(table, DataSettings, path)
    if is_named(found.name):
        places.check_code(found.name, f"{path}.name")
    return found


def read_recipe(table: Any, path: str, seed: int, places: ConfigSource) -> Recipe:
    """A recipe, whose seed is that of the file.

    Raises
    ------
    SpecError
        If a key is unknown or a value out of range; says where.
    """
    places.check_keys(table, Recipe.__struct_fields__, path)
    if "seed" in table:
        raise SpecError(
            f"{path}.seed has no place here ({places.of(f'{path}.seed')}); one `seed` at the top of the file is for all"
        )
    try:
        return Recipe.from_mapping({**table, "seed": seed})
    except SpecError as error:
        raise places.placed(error, path) from error


def read_spec(table: Any, path: str, places: ConfigSource) -> QuantSpec:
    """What to quantize.

    Raises
    ------
    SpecError
        If a key or method is unknown, or a value out of range; says where.
    """
    places.check_keys(table, QuantSpec.__struct_fields__, path)
    _check_targets(table, path, places)
    rules = table.get("rules", [])
    if not isinstance(rules, list):
        raise SpecError(f"{path}.rules must be a list of tables, got {rules!r} ({places.of(f'{path}.rules')})")
    for i, rule in enumerate(rules):
        places.check_keys(rule, Rule.__struct_fields__, f"{path}.rules[{i}]")
        _check_targets(rule, f"{path}.rules[{i}]", places)
    try:
        return QuantSpec.from_dict(table)
    except SpecError as error:
        raise places.placed(error, path) from error


def _check_targets(table: dict[str, Any], path: str, places: ConfigSource) -> None:
    for target, known in (("weights", WEIGHTS), ("membrane", MEMBRANES)):
        setting = table.get(target)
        if not isinstance(setting, dict):
            continue
        method = setting.get("method", MEMBRANE_DEFAULT if target == "membrane" else None)
        if not isinstance(method, str) or method not in known:
            place = f"{path}.{target}.method"
            raise SpecError(f"{place} must be one of {', '.join(known)}, got {method!r} ({places.of(place)})")
        places.check_keys(setting, ("method", *known[method].__struct_fields__), f"{path}.{target}")
