"""Functions whose answer a compiled graph writes down."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

Function = TypeVar("Function", bound=Callable[..., Any])


def constant_in_graphs(function: Function) -> Function:
    """What `torch.compiler.assume_constant_result` does, which imports torch's compiler for it: that takes longer than
    all of isofire, and most processes compile nothing."""
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function
