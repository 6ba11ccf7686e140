"""Options that are whole numbers, which the command-line library would round from fractions."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, get_origin

from cyclopts import CoercionError, Parameter, Token


def _whole(kind: Any, tokens: Sequence[Token]) -> Any:
    numbers = tuple(_number(token) for token in tokens)
    return numbers if get_origin(kind) is tuple else numbers[0]


def _number(token: Token) -> int:
    if re.fullmatch(r"[+-]?[0-9]+", token.value) is None:
        wrong = f"{token.keyword} takes whole numbers in digits, such as 2, got {token.value!r}"
        raise CoercionError(msg=wrong, token=token)
    return int(token.value)


WHOLE = Parameter(converter=_whole)
"""To stand in the annotation of every option that takes whole numbers; 2.5 and 2.0 are refused by name."""
