"""TOML and JSON: values that the rest can handle, or one kind of error."""

from __future__ import annotations

import json
import os
import tomllib
from pathlib import Path

import pytest

from isofire.errors import SpecError
from isofire.toml_json import MOST_TOML, parse_json, parse_toml, read_json, read_toml


def test_values_are_those_of_the_standard_library() -> None:
    text = 'a = [1, -2.5, true, "ä", {b = []}]\n[c]\nd = 9223372036854775807\n'
    assert parse_toml(text) == tomllib.loads(text)
    text = '{"a": [1, -2.5, null, true, 0.1, 1e-300, "\\u00e4"], "b": {"c": 18446744073709551615}}'
    found = parse_json(text)
    assert found == json.loads(text) == parse_json(text.encode())
    assert [type(item) for item in found["a"]] == [int, float, type(None), bool, float, float, str]


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("[" * 2000 + "]" * 2000, "nested deeper than 64"),
        ("[" * 70 + "]" * 70, "nested deeper than 64"),
        ("[" * 2000, None),
        ("1" + "0" * 5000, None),
        ("1" + "0" * 30, "must fit 64 bits"),
        ("-9223372036854775809", "must fit 64 bits"),
        ('"\\u0000"', "NUL"),
        ('"\\ud800"', None),
        ("", None),
    ],
)
def test_what_would_break_later_is_refused(value: str, reason: str | None) -> None:
    for parse, text in ((parse_toml, f"a = {value}"), (parse_json, value)):
        with pytest.raises(ValueError, match=reason):
            parse(text)


def test_what_only_one_of_them_has() -> None:
    with pytest.raises(ValueError, match="put it in quotes"):
        parse_toml("a = 2026-11-28")
    with pytest.raises(ValueError, match="nested deeper"):
        parse_toml(".".join("a" * 70) + " = 1")
    for text in ("NaN", '{"a": Infinity}', "1e400", "\ud800", b"\xff"):
        with pytest.raises(ValueError):  # noqa: PT011
            parse_json(text)


def test_files(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_bytes(b"a = 1\r\nb = '''x\r\ny'''\r\n")
    assert read_toml(path) == {"a": 1, "b": "x\ny"}
    for data, reason in (
        (b"\xff", "not valid TOML"),
        (b'{"quant": 1}', "not valid TOML, but JSON, such as the config.json of a run"),
        (b"a = " + b"[" * 2000, "not valid TOML"),
        (b" " * (MOST_TOML + 1), "most that can be right"),
    ):
        path.write_bytes(data)
        with pytest.raises(SpecError, match=reason):
            read_toml(path)
    (tmp_path / "a.json").write_text("[1]")
    assert read_json(tmp_path / "a.json") == [1]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes by name")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.toml")
    with pytest.raises(SpecError, match="it is a pipe"):
        read_toml(tmp_path / "a.toml")
