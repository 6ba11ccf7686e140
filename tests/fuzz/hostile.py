"""Inputs that are nearly right: whole ones with bytes, values or structure changed."""

from __future__ import annotations

import copy
import json
from typing import Any

from hypothesis import strategies as st

VALUES: list[Any] = [
    None, True, [], {}, "", "x", "a" * 300, "../../x", "os:system", "re:(", "nan", -1, 0, 1, 2, 7, 2**31, 2**63 - 1,
    2**63, 2**64, 10**30, -(2**70), 0.5, -0.0, 1e-300, 1e39, 1e308, [1, 2], [[1]], [-1e39, 1e39], {"a": 1},
    {"method": {}}, ["a", "b"], "a\x00b", "=1+1", "é" * 40,
]  # fmt: skip
"""What stands in for a value: other types, bounds of numbers, names that lead elsewhere."""

PIECES = [b"", b"\0", b"\xff", b"{", b"}", b"[" * 3000, b'"', b"\n", b"1" * 5000, b"\x89HDF\r\n\x1a\n", b"\xff" * 8]

values = st.sampled_from(VALUES) | st.integers() | st.floats() | st.text(max_size=20)
edits = st.lists(
    st.tuples(st.integers(0, 10_000), st.sampled_from(["set", "drop", "add"]), values), min_size=1, max_size=3
)


def edited(document: Any, changes: list[tuple[int, str, Any]]) -> Any:
    """A copy in which some place, of all there are, has another value, is missing, or has a neighbour."""
    root = {"": copy.deepcopy(document)}
    for number, kind, value in changes:
        places = _places(root)
        holder, key = places[number % len(places)]
        if kind == "drop" and holder is not root:
            del holder[key]
        elif kind == "add" and isinstance(holder, dict) and holder is not root:
            holder["added" if number % 2 else str(value)[:50]] = value
        else:
            holder[key] = copy.deepcopy(value)
    return root[""]


def _places(value: Any) -> list[tuple[Any, Any]]:
    found: list[tuple[Any, Any]] = []
    keys = value.keys() if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in list(keys):
        found.append((value, key))
        found += _places(value[key])
    return found


kinds = st.sampled_from(["cut", "flip", "put", "insert"])
byte_edits = st.lists(
    st.tuples(st.floats(0, 1), kinds, st.integers(0, 255), st.sampled_from(PIECES)),
    min_size=1, max_size=4,
)  # fmt: skip


def damaged(data: bytes, changes: list[tuple[float, str, int, bytes]]) -> bytes:
    """Bytes cut off, flipped, overwritten or inserted; most places lie near the start, where headers are."""
    for share, kind, number, piece in changes:
        at = int(share**4 * len(data))
        if kind == "cut":
            data = data[:at]
        elif kind == "flip" and data:
            at = min(at, len(data) - 1)
            data = data[:at] + bytes([data[at] ^ (number or 1)]) + data[at + 1 :]
        elif kind == "put":
            data = data[:at] + piece + data[at + len(piece) :]
        else:
            data = data[:at] + piece + data[at:]
    return data


def to_toml(table: dict[str, Any]) -> str:
    """TOML of plain values, each key on a line of its own."""
    return "".join(f"{_key(key)} = {_toml(value)}\n" for key, value in table.items())


def _key(key: Any) -> str:
    return json.dumps(str(key))


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_key(key)} = {_toml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        return '""'
    return repr(value) if isinstance(value, int | float) else json.dumps(value)
