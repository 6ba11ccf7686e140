"""Patterns that a stranger's file may bring."""

from __future__ import annotations

import time

import pytest

from isofire.errors import SpecError
from isofire.quantization.patterns import MOST_REPEATS, compile_pattern, matches


@pytest.mark.parametrize(
    "text",
    [
        "stages\\.2\\..*conv.*",
        "(stages|blocks)\\.\\d+\\.\\d+\\..*conv\\d+.*",
        "(?:ab){2}c?",
        "a{3}[bc]*",
        "(?i)Conv.",
        "",
    ],
)
def test_usual_patterns(text: str) -> None:
    assert compile_pattern(text, "here").pattern == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("(a+)+b", "may not repeat a part that itself repeats"),
        ("(a|aa)*b", "or is a choice"),
        ("((a?)b)*", "may not repeat"),
        ("(?:a*)*?b", "may not repeat"),
        ("(a*){30}b", "may not repeat"),
        ("(?=(a+)+b)", "may not repeat"),
        ("(a*)\\1", "may not refer to its own groups"),
        (".*" * 6, "5 parts of any length.*got 6"),
        ("a" * 501, "500 characters, got 501"),
        ("(", r"not a valid regular expression: .* \(here\)"),
        ("a{99999999999999}", "not a valid regular expression"),
    ],
)
def test_refused(text: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        compile_pattern(text, "here")


def test_the_worst_that_is_taken_ends() -> None:
    pattern = compile_pattern(".*" * 5 + "X", "here")
    start = time.perf_counter()
    assert pattern.fullmatch("a" * 60) is None
    assert time.perf_counter() - start < 10


@pytest.mark.parametrize("repeats", range(1, MOST_REPEATS + 1))
def test_a_long_name_cannot_take_long(repeats: int) -> None:
    text = "a*" * repeats + "b"
    for length in (60, 100, 316, 1000, 5000):
        began = time.process_time()
        try:
            assert not matches(text, "a" * length, "here")
        except SpecError as error:
            assert length**repeats > 10**9
            assert f"with {length} characters" in str(error)  # noqa: PT017
        assert time.process_time() - began < 5
    assert matches(text, "a" * 60 + "b", "here")
