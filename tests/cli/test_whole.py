"""Options that take whole numbers take nothing else, on every command."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from isofire.cli.app import app

REQUIRED = {"check": ("a", "b"), "compare": ("a", "b"), "sweep": ("a",), "train": ("-c", "a")}
MISTAKES = ("2.5", "2.0", "1e3", "two", "", "nan", "0x10", "1_0", "\u0664")


def options() -> Iterator[tuple[str, str]]:
    """Every option of every command whose annotation names int."""
    for command in app:
        if command.startswith("-"):
            continue
        for argument in app[command].assemble_argument_collection():
            if "int" in str(argument.hint) and argument.parameter.parse is not False:
                yield command, argument.names[0]


OPTIONS = sorted(set(options()))


def test_the_options_are_found():
    assert {("cost", "--batch-size"), ("allocate", "--bits"), ("bench", "--rounds"), ("train", "--seed")} <= set(
        OPTIONS
    )
    assert len(OPTIONS) > 35


@pytest.mark.parametrize(("command", "option"), OPTIONS)
def test_fractions_and_words_are_refused_by_name(run, command, option):
    for wrong in MISTAKES:
        result = run(command, *REQUIRED.get(command, ()), f"{option}={wrong}")
        assert result.code == 2
        assert option in result.err
        assert repr(wrong) in result.err
        assert "whole number" in result.err


@pytest.mark.parametrize(("command", "option"), OPTIONS)
def test_whole_numbers_are_taken(command, option):
    given = [command, *REQUIRED.get(command, ()), f"{option}=3"]
    _, bound, _ = app.parse_args(given, print_error=False, exit_on_error=False)
    assert "3" in str(bound)


def test_several_are_given_one_by_one(run):
    result = run("allocate", "sew_resnet8-digits", "--bits", "2", "--bits", "4.5", "--total-kib", "10")
    assert result.code == 2
    assert "--bits takes whole numbers in digits, such as 2, got '4.5'" in result.err
