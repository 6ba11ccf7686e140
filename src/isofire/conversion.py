"""Plain values as typed ones, by msgspec; what does not fit is told with rule, value, place and cure."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import inspect

from isofire.errors import SpecError

_SHOWN = 200
_STEP = re.compile(r"([^.\[\]]+)|\[([^\]]*)\]")


class MisfitError(SpecError):
    """A value that does not fit, with its place: "cells[2].bits: expected `int`, got '4'".

    Attributes
    ----------
    place
        Such as "cells[2].bits"; for an unknown key, that key.
    rule, cure
        What is wrong there, the value included, and what to do; parts of the message.
    """

    def __init__(self, place: str, rule: str, cure: str = "") -> None:
        super().__init__(f"{place}: {rule}{cure}" if place else f"{rule}{cure}")
        self.place, self.rule, self.cure = place, rule, cure


def within(error: SpecError, path: str) -> MisfitError:
    """The error of a value that lies at `path` of a larger one."""
    if isinstance(error, MisfitError):
        return MisfitError(f"{path}.{error.place}".strip("."), error.rule, error.cure)
    return MisfitError(path, str(error))


def convert(value: Any, kind: Any, place: str = "") -> Any:
    """`msgspec.convert`, with errors that an engineer can act on.

    Parameters
    ----------
    place
        What `value` is, such as "rules[0].weights"; "" where its keys stand for themselves.

    Raises
    ------
    SpecError
        If it does not fit: a `MisfitError`, or the error that the type itself raised.

    Examples
    --------
    >>> convert({"bits": [2, "x"]}, dict[str, list[int]], "cell")
    Traceback (most recent call last):
    isofire.conversion.MisfitError: cell[...][1]: expected `int`, got {'bits': [2, 'x']}
    """
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        text, _, inner = str(error).partition(" - at `$")
        inner = inner.rstrip("`")
        path = (place + inner).lstrip(".")
        if isinstance(error.__cause__, SpecError):
            raise (within(error.__cause__, path) if path else error.__cause__) from error
        raise _misfit(text, value, kind, path, inner) from error


def plain(value: Any, place: str) -> Any:
    """A value given in Python as a file would have it.

    Raises
    ------
    SpecError
        If something in it is neither a number, text, a list nor a table.
    """
    try:
        return msgspec.to_builtins(value)
    except TypeError as error:
        raise SpecError(f"values must be plain numbers, text, lists or tables (at {place}): {error}") from error


def unknown_key(key: str, known: Iterable[str], place: str) -> MisfitError:
    """The error for a key that a table does not have; it names the nearest, and all that there are."""
    names = list(known)
    close = difflib.get_close_matches(key, names, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return MisfitError(f"{place}.{key}".strip("."), "unknown key", f"; {hint}known here: {', '.join(names)}")


if TYPE_CHECKING:
    NamedKeys = msgspec.StructMeta  # its own signature is the one to check
else:

    class NamedKeys(msgspec.StructMeta):
        """Of settings made in Python: a keyword that is none of their fields is told with the nearest, as in a file."""

        def __call__(cls, *values, **keys):
            for key in keys:
                if key not in cls.__struct_fields__:
                    raise unknown_key(key, cls.__struct_fields__, cls.__name__)
            return super().__call__(*values, **keys)


def shown(value: Any) -> str:
    """What a value looks like, for an error that must stay readable whatever it is."""
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}... ({len(text):,} characters)"


def _misfit(reason: str, value: Any, kind: Any, path: str, inner: str) -> MisfitError:
    if "unknown field" in reason:
        return unknown_key(reason.split("`")[-2], _keys(kind, inner), path)
    if "missing required field" in reason:
        return MisfitError(path, f"needs the key {reason.split()[-1]}")
    rule = reason.partition(", got")[0].replace("`object`", "a table").replace("`array`", "a list")
    found, cure = _at(value, inner), ""
    if "enum value" in rule:
        rule = f"must be {_choices(kind, inner)}"
        known = [str(name) for item in _types(kind, inner) for name in getattr(item, "values", ())]
        close = _close(found, known)
        cure = f"; did you mean {close!r}?" if close else ""
    return MisfitError(path, f"{rule[0].lower()}{rule[1:]}, got {shown(found)}", cure)


def _close(found: Any, known: list[str]) -> str | None:
    """The choice that may be meant: the nearest, punctuation aside."""
    plain = {re.sub(r"[-_ ]", "", name).lower(): name for name in known}
    near = difflib.get_close_matches(re.sub(r"[-_ ]", "", str(found)).lower(), plain, n=1)
    return plain[near[0]] if near else None


def _choices(kind: Any, inner: str) -> str:
    types = list(_types(kind, inner))
    known = [str(value) for found in types for value in getattr(found, "values", ())]
    if any(isinstance(found, inspect.TupleType) for found in types):
        known.insert(0, "[low, high]")
    return " or ".join([", ".join(known[:-1]), known[-1]] if known[1:] else known)


def _at(value: Any, inner: str) -> Any:
    """What lies at a path such as `.cells[2].bits`; what holds it where a key is missing or stands for any."""
    for name, index in _STEP.findall(inner):
        if isinstance(value, dict) and name in value:
            value = value[name]
        elif isinstance(value, Sequence) and not isinstance(value, str) and index.isdigit() and int(index) < len(value):
            value = value[int(index)]
        else:
            break
    return value


def _types(kind: Any, inner: str) -> Iterator[inspect.Type]:
    """Every type that a value at this path may have."""
    found: list[inspect.Type] = list(_alternatives(inspect.type_info(kind)))
    for name, _ in _STEP.findall(inner):
        below = [part for item in found for part in _below(item, name)]
        found = [alternative for part in below for alternative in _alternatives(part)]
    yield from found


def _below(item: inspect.Type, name: str) -> Iterator[inspect.Type]:
    if isinstance(item, inspect.StructType):
        yield from (field.type for field in item.fields if field.name == name)
    elif isinstance(item, inspect.DictType):
        yield item.value_type
    elif isinstance(item, inspect.TupleType):
        yield from item.item_types
    elif (part := getattr(item, "item_type", None)) is not None:
        yield part


def _alternatives(item: inspect.Type) -> Iterator[inspect.Type]:
    yield from item.types if isinstance(item, inspect.UnionType) else (item,)


def _keys(kind: Any, inner: str) -> list[str]:
    return [field.name for item in _types(kind, inner) for field in getattr(item, "fields", ())]
