"""Options that are whole numbers, which the command-line library would round from fractions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_origin

from cyclopts import CoercionError, Parameter, Token


def _whole(kind: Any, tokens: Sequence[Token]) -> Any:
    numbers = tuple(_number(token) for token in tokens)
    return numbers if get_origin(kind) is tuple else numbers[0]


def _number(token: Token) -> int:
    try:
        return int(token.value)
    except ValueError:
        wrong = f"{token.keyword} takes whole numbers in digits, such as 2, got {token.value!r}"
        raise CoercionError(msg=wrong, token=token) from None


WHOLE = Parameter(converter=_whole)
"""To stand in the annotation of every option that takes whole numbers; 2.5 and 2.0 are refused by name."""
