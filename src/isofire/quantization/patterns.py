"""Patterns of a rule: regular expressions, which may come with a stranger's file, that cannot backtrack for ever."""

from __future__ import annotations

import re
from re import _constants as codes  # pyright: ignore[reportAttributeAccessIssue]
from re import _parser as parser  # pyright: ignore[reportAttributeAccessIssue]
from typing import Any

from isofire.errors import SpecError

LONGEST = 500
"""Characters of a pattern."""
MOST_REPEATS = 5
"""Parts of a pattern that may match any number of characters: the time to match a name of n characters grows with at
most the power of their number."""
MOST_STEPS = 10**10
"""That power, at most: five such parts and a name of 100 characters, a third of a second."""

_REPEATS = (codes.MAX_REPEAT, codes.MIN_REPEAT)


def compile_pattern(text: str, place: str) -> re.Pattern[str]:
    """The compiled pattern.

    Parameters
    ----------
    place
        For errors.

    Raises
    ------
    SpecError
        If it is no regular expression, too long, or could take exponential time: a repeat inside a repeat, a repeated
        choice, a reference to an earlier group.
    """
    return _checked(text, place)[0]


def matches(text: str, name: str, place: str) -> bool:
    """Whether the whole name is matched.

    Raises
    ------
    SpecError
        As `compile_pattern`, or if the name is so long that matching it could take long.
    """
    pattern, count = _checked(text, place)
    if len(name) ** count > MOST_STEPS:
        raise SpecError(
            f"matching {count} parts of any length against the name of a layer with {len(name)} characters, "
            f"{name[:40]!r}..., could take for ever ({place}); write fewer such parts, several rules, or the name"
        )
    return pattern.fullmatch(name) is not None


def _checked(text: str, place: str) -> tuple[re.Pattern[str], int]:
    """The pattern, and how many of its parts have no fixed length."""
    if len(text) > LONGEST:
        raise SpecError(f"a pattern may have {LONGEST} characters, got {len(text)} ({place}); write several rules")
    try:
        pattern, tree = re.compile(text), parser.parse(text)
    except (re.error, OverflowError, RecursionError) as error:
        raise SpecError(f"not a valid regular expression: {error} ({place})") from error
    count = _repeats(tree, False, place)
    if count > MOST_REPEATS:
        raise SpecError(
            f"a pattern may have {MOST_REPEATS} parts of any length, such as .* or \\d+, got {count} ({place}); write "
            "several rules"
        )
    return pattern, count


def _repeats(tree: Any, repeated: bool, place: str) -> int:
    """How many parts have no fixed length."""
    count = 0
    for code, value in tree:
        if code in (codes.GROUPREF, codes.GROUPREF_EXISTS):
            raise SpecError(f"a pattern may not refer to its own groups ({place}); write out what it stands for")
        varies = code in _REPEATS and value[0] != value[1]
        if repeated and (varies or code is codes.BRANCH):
            raise SpecError(
                "a pattern may not repeat a part that itself repeats or is a choice, as (a+)+ and (a|b)* do: matching "
                f"can take for ever ({place}); write a+ or [ab]*, or several rules"
            )
        again = repeated or (code in _REPEATS and value[1] > 1)
        count += varies + sum(_repeats(part, again, place) for part in _parts(code, value))
    return count


def _parts(code: Any, value: Any) -> list[Any]:
    """The patterns inside a part."""
    if code in _REPEATS or code is codes.POSSESSIVE_REPEAT:
        return [value[2]]
    if code is codes.SUBPATTERN:
        return [value[-1]]
    if code is codes.BRANCH:
        return list(value[1])
    if code in (codes.ASSERT, codes.ASSERT_NOT):
        return [value[1]]
    return [value] if code is codes.ATOMIC_GROUP else []
