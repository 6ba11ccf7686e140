"""What a module is called with, whichever way its first argument is written."""

from __future__ import annotations

import inspect
from typing import Any

from torch import nn


def by_place(
    module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of a call with the first by its place: `neuron(x=currents)` as `neuron(currents)`."""
    if args or not kwargs:
        return args, kwargs
    first = next(iter(inspect.signature(module.forward).parameters))
    if first not in kwargs:
        return args, kwargs
    return (kwargs[first],), {name: value for name, value in kwargs.items() if name != first}
