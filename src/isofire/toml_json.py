"""TOML and JSON as plain values: whatever a file holds, out comes a value that the rest can handle, or an error.

The parsers themselves let through what breaks later and elsewhere: nesting that no recursive walk survives, whole
numbers that fit no register, text that no file name or screen takes.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from typing import Any

import msgspec

from isofire.errors import SpecError
from isofire.files import read_file

MOST_TOML = 1 << 20
"""Bytes; the largest configuration of this repository has three thousand."""

MOST_JSON = 1 << 26
"""Bytes; a plan of fifty thousand cells."""

_DEPTH = 64
_LOW, _HIGH = -(2**63), 2**64 - 1


def parse_toml(text: str) -> dict[str, Any]:
    """Values of a TOML document.

    Raises
    ------
    ValueError
        If it is no TOML (then a `tomllib.TOMLDecodeError`), or holds what `check_plain` refuses.

    Examples
    --------
    >>> parse_toml("a = [1, 2.5]")
    {'a': [1, 2.5]}
    """
    try:
        return check_plain(tomllib.loads(text))
    except RecursionError:
        raise ValueError(f"it is nested deeper than {_DEPTH}") from None


def parse_json(data: bytes | str) -> Any:
    """Values of a JSON document.

    Raises
    ------
    ValueError
        If it is no JSON (NaN is none), or holds what `check_plain` refuses.

    Examples
    --------
    >>> parse_json('{"a": [1, 2.5]}')
    {'a': [1, 2.5]}
    """
    try:
        return check_plain(msgspec.json.decode(data))
    except (msgspec.MsgspecError, UnicodeEncodeError) as error:
        raise ValueError(str(error)) from error
    except RecursionError:
        raise ValueError(f"it is nested deeper than {_DEPTH}") from None


def read_toml(path: str | os.PathLike[str]) -> dict[str, Any]:
    """A TOML file as a dict.

    Raises
    ------
    SpecError
        If it is missing or not TOML; says where.
    """
    try:
        text = read_file(path, MOST_TOML).decode("utf-8")
    except OSError as error:
        raise SpecError(f"cannot read {os.fspath(path)}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        network = os.fspath(path).endswith((".safetensors", ".nir", ".pt", ".pth"))
        cure = (
            "that is a network, which goes elsewhere (isofire sweep: --baseline FILE); name a TOML file here"
            if network
            else "name a TOML file, in UTF-8"
        )
        raise SpecError(f"{os.fspath(path)} is not valid TOML, it is no text ({error}); {cure}") from error
    try:
        return parse_toml(text.replace("\r\n", "\n"))
    except ValueError as error:
        what = (
            ", but JSON, such as the config.json of a run; name the run's TOML file"
            if text.lstrip("\ufeff \t\r\n").startswith("{")
            else ""
        )
        raise SpecError(f"{os.fspath(path)} is not valid TOML{what}: {error}") from error


def read_json(path: str | os.PathLike[str]) -> Any:
    """The values of a JSON file.

    Raises
    ------
    OSError
        If it cannot be read.
    ValueError
        As `parse_json`.
    """
    return parse_json(read_file(path, MOST_JSON))


def check_plain(value: Any) -> Any:
    """Return `value`, made of tables, lists, text, numbers and truth values, if everything else can handle it.

    Raises
    ------
    ValueError
        If it is nested deeper than 64, a whole number has more than 64 bits, text holds NUL or half a character, or
        there is a date.
    """
    waiting = [(value, 0)]
    while waiting:
        item, depth = waiting.pop()
        if depth > _DEPTH:
            raise ValueError(f"it is nested deeper than {_DEPTH}")
        if isinstance(item, Mapping):
            waiting += [(part, depth + 1) for pair in item.items() for part in pair]
        elif isinstance(item, list):
            waiting += [(part, depth + 1) for part in item]
        else:
            _check_single(item)
    return value


def _check_single(item: Any) -> None:
    if isinstance(item, str):
        if "\0" in item or (not item.isprintable() and any("\ud800" <= letter <= "\udfff" for letter in item)):
            raise ValueError(f"text must hold neither NUL nor half a character, got {item[:60]!r}")
    elif isinstance(item, int):
        if not _LOW <= item <= _HIGH:
            raise ValueError(f"whole numbers must fit 64 bits, got one of {item.bit_length()}")
    elif item is not None and not isinstance(item, float):
        raise ValueError(f"values must be numbers, text, true or false, lists or tables, got {item}; put it in quotes")
