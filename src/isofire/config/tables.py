"""The tables of a configuration file that several kinds of files share: [model], [data], [train], [qat], [quant]."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import msgspec

from isofire.config.data import DataSettings
from isofire.config.source import ConfigSource
from isofire.errors import SpecError
from isofire.models import is_named
from isofire.models.build import BUILDERS
from isofire.spec import QuantSpec
from isofire.training import Recipe

_LOG = logging.getLogger(__name__)

S = TypeVar("S", bound=msgspec.Struct)
Reader = Callable[[Any, str, ConfigSource], Any]


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


def read_table(
    kind: type[S], table: Any, path: str, places: ConfigSource, readers: Mapping[str, Reader] | None = None
) -> S:
    """A table as a struct: [model], [data], [train], [qat] and [quant] by the readers below, the rest by its type.

    Parameters
    ----------
    path
        Of the table; "" for the whole file.
    readers
        For further keys, or in place of those below: called with value, path and `places`.

    Raises
    ------
    SpecError
        If a key is unknown or missing, or a value out of range; says where.
    """
    places.check_keys(table, kind.__struct_fields__, path)
    known = {**_READERS, **(readers or {})}
    found = {}
    for field in msgspec.structs.fields(kind):
        full = f"{path}.{field.name}" if path else field.name
        if field.name in table:
            read = known.get(field.name)
            value = table[field.name]
            found[field.name] = read(value, full, places) if read else places.convert(value, field.type, full)
        elif field.required:
            raise places.placed(SpecError(f"needs the key `{field.name}`"), path)
    return kind(**found)


def read_model(table: Any, path: str, places: ConfigSource) -> dict[str, Any]:
    """A builder and its arguments."""
    got = table.get("builder") if isinstance(table, dict) else table
    if not isinstance(table, dict) or not isinstance(got, str) or got not in BUILDERS:
        raise places.placed(SpecError(f"must be one of {', '.join(BUILDERS)}, got {got!r}"), f"{path}.builder")
    takes = inspect.signature(BUILDERS[table["builder"]]).parameters
    places.check_keys(table, ("builder", *takes), path)
    return table


def read_data(table: Any, path: str, places: ConfigSource) -> DataSettings:
    """A data set and how it is cut; of the user's own code only where the file may name that."""
    found = places.convert(table, DataSettings, path)
    if is_named(found.name):
        places.check_code(found.name, f"{path}.name")
    return found


def read_recipe(table: Any, path: str, places: ConfigSource, seed: int = 0) -> Recipe:
    """A recipe, whose seed is that of the file."""
    places.check_keys(table, Recipe.__struct_fields__, path)
    if "seed" in table:
        told = SpecError("has no place here; one `seed` at the top of the file is for all")
        raise places.placed(told, f"{path}.seed")
    return places.convert({**table, "seed": seed}, Recipe, path)


def read_spec(table: Any, path: str, places: ConfigSource) -> QuantSpec:
    """What to quantize."""
    try:
        return QuantSpec.from_dict(table)
    except SpecError as error:
        raise places.placed(error, path) from error


_READERS: dict[str, Reader] = {
    "model": read_model,
    "data": read_data,
    "train": read_recipe,
    "qat": read_recipe,
    "quant": read_spec,
}
