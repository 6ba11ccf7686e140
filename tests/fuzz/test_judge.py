"""The judge condemns what no document promises."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

pytest.importorskip("hypothesis")

from tests.fuzz import judge as module
from tests.fuzz.hostile import damaged, edited
from tests.fuzz.judge import Wrong, command, judge
from tests.fuzz.readers import READERS

from isofire.errors import DataError


def failing(error: BaseException):
    def read() -> None:
        raise error

    return read


def test_what_is_documented(tmp_path: Path) -> None:
    assert judge(lambda: None, tmp_path) == "read"
    assert judge(failing(DataError("it is damaged")), tmp_path) == "DataError"
    assert judge(command("status", str(tmp_path / "nowhere")), tmp_path) == "status 2"


@pytest.mark.parametrize("error", [KeyError("a"), ValueError("a"), RecursionError(), MemoryError(), SystemExit(3)])
def test_other_errors_are_wrong(tmp_path: Path, error: BaseException) -> None:
    with pytest.raises(Wrong, match=type(error).__name__):
        judge(failing(error), tmp_path)
    with pytest.raises(Wrong, match="without a sentence"):
        judge(failing(DataError("")), tmp_path)


def test_time_memory_and_files_that_were_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Wrong, match="left"):
        judge((tmp_path / ".a.x.part").touch, tmp_path)
    monkeypatch.setattr(module, "SECONDS", 0.01)
    with pytest.raises(Wrong, match=r"\d s"):
        judge(lambda: time.sleep(0.05), tmp_path)
    monkeypatch.setattr(module, "SECONDS", 10.0)
    peaks = iter([0, 2 << 30])
    monkeypatch.setattr(module, "_peak", lambda: next(peaks))
    with pytest.raises(Wrong, match="2048 MiB more"):
        judge(lambda: None, tmp_path)


def test_inputs_are_changed() -> None:
    assert edited({"a": [1, {"b": 2}]}, [(3, "set", "x")]) != {"a": [1, {"b": 2}]}
    assert edited({"a": 1}, [(1, "drop", None)]) == {}
    assert damaged(b"abcd", [(0.0, "flip", 1, b"")]) == b"`bcd"
    assert damaged(b"abcd", [(1.0, "insert", 0, b"x")]) == b"abcdx"
    assert len(READERS) == 19
