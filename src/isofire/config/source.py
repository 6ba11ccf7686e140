"""Settings from a file with changes laid over them, checked so that every error names where a value came from."""

from __future__ import annotations

import logging
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from isofire.conversion import MisfitError, convert, shown, unknown_key, within
from isofire.errors import SpecError
from isofire.toml_json import check_plain, parse_toml

_LOG = logging.getLogger(__name__)


def merge_settings(
    values: Mapping[str, Any], settings: Sequence[str], source: str, allow_code: bool = False
) -> tuple[dict[str, Any], ConfigSource]:
    """A copy of `values` with settings such as "train.epochs=2" laid over it, and where each key came from.

    Parameters
    ----------
    allow_code
        See `ConfigSource.check_code`.

    Raises
    ------
    SpecError
        If a setting has no key and value, or goes into something that is no table.
    """
    merged: dict[str, Any] = _copied(values)
    places = ConfigSource(source, allow_code)
    for setting in settings:
        key, value = parse_setting(setting)
        _insert(merged, key, value)
        places.overrides.append(key)
    return merged, places


def parse_setting(text: str, option: str = "--set", example: str = "train.epochs=2") -> tuple[str, Any]:
    """Split "a.b=value" into its key and its value, read as TOML where it is TOML, else taken as text.

    Parameters
    ----------
    option, example
        What the text was given to, for errors.

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
        raise SpecError(f"{option} takes key=value, such as {example}, got {shown(text)}")
    try:
        check_plain(dict.fromkeys(key.split("."), value))
    except ValueError as error:
        raise SpecError(f"{option} {shown(text)}: {error}") from error
    try:
        found = parse_toml(f"value = {value}")
    except tomllib.TOMLDecodeError:
        return key, value.strip()
    except ValueError as error:
        raise SpecError(f"{option} {shown(text)}: {error}") from error
    return key, found["value"] if set(found) == {"value"} else value.strip()


class ConfigSource:
    """Where each key came from: a file, a setting on the command line, or another of its options.

    Attributes
    ----------
    overrides
        Keys that `--set` brought.
    options
        Keys that other options of the command line brought.
    """

    def __init__(self, source: str, allow_code: bool = False) -> None:
        self.source, self.allow_code = source, allow_code
        self.overrides: list[str] = []
        self.options: list[str] = []

    def of(self, key: str) -> str:
        """`--set key` if that brought it, else the file, with the settings that changed parts of it."""
        for override in self.overrides:
            if _holds(override, key):
                return f"--set {override}"
        within = [f" with --set {override}" for override in self.overrides if override.startswith(f"{_dotted(key)}.")]
        return self.source + "".join(within)

    def check_code(self, name: str, key: str) -> None:
        """Refuse code that a file names, unless that was allowed; then say it, before anything of it is imported.

        Who names code on the command line wants it run. Who runs a file may not know what stands in it.

        Parameters
        ----------
        name
            "package.module:function".

        Raises
        ------
        SpecError
            If the file names it and `allow_code` is false.
        """
        if any(_holds(given, key) for given in (*self.overrides, *self.options)):
            return
        if not self.allow_code:
            raise SpecError(
                f"{key} = {name!r} is code to import and run, which a file may not name by itself ({self.source}); "
                "look at that code, then give --allow-code (in Python: allow_code=True), or name it on the command line"
            )
        # a warning, since that is what Python shows where nobody set up logging
        _LOG.warning("%s names code that is run now: %s (%s)", self.source, name, key)

    def check_keys(self, table: Any, allowed: Iterable[str], path: str) -> None:
        """Refuse what is no table, and keys that are not `allowed`, with the nearest that is."""
        if not isinstance(table, dict):
            raise self.placed(SpecError(f"must be a table, got {shown(table)}"), path)
        names = list(allowed)
        for key in table:
            if key not in names:
                raise self._told(unknown_key(key, names, path))

    def convert(self, value: Any, kind: Any, path: str) -> Any:
        """`isofire.conversion.convert` whose errors name the key and where it came from."""
        try:
            return convert(value, kind, path)
        except MisfitError as error:
            raise self._told(error) from error

    def placed(self, error: SpecError, path: str) -> SpecError:
        """An error of the value at `path`, which does not know where it lies, with place and file."""
        return self._told(within(error, path))

    def _told(self, error: MisfitError) -> SpecError:
        return SpecError(f"{error.place}: {error.rule} ({self.of(error.place)}){error.cure}")


def _holds(given: str, key: str) -> bool:
    """Whether a setting such as `cells.0` brought the key `cells[0].bits`."""
    return f"{_dotted(key)}.".startswith(f"{given}.")


def _dotted(key: str) -> str:
    return re.sub(r"\[(\d+)\]", r".\1", key)


def _insert(values: dict[str, Any], key: str, value: Any) -> None:
    *path, last = key.split(".")
    table: Any = values
    for name in path:
        table = table[_place(key, name, table)] if isinstance(table, list) else table.setdefault(name, {})
        if not isinstance(table, dict | list):
            raise SpecError(f"--set {key} goes into {name!r}, which is no table; set what holds it as a whole")
    if isinstance(table, list):
        table[_place(key, last, table)] = value
    else:
        table[last] = value


def _place(key: str, name: str, items: list[Any]) -> int:
    if not (name.isdecimal() and name.isascii() and int(name) < len(items)):
        raise SpecError(f"--set {key} goes into a list of {len(items)}, which count from 0, got {name!r} for the place")
    return int(name)


def _copied(value: Any) -> Any:
    if isinstance(value, list):
        return [_copied(item) for item in value]
    return {key: _copied(item) for key, item in value.items()} if isinstance(value, Mapping) else value
