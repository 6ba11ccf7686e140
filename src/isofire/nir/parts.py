"""The quantization of a network, also where a part of it was quantized before the rest was built around it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import msgspec
from torch import nn

from isofire.adapters import copy_of
from isofire.quantization import convert_, is_converted, spec_of
from isofire.quantization.on_levels import require_levels
from isofire.quantization.parts import choices_of_parts
from isofire.quantization.verbs import quantized_parts
from isofire.spec import QuantSpec


def converted(model: nn.Module) -> nn.Module:
    """The network with the values of its levels as weights: itself, or a copy if a part is only prepared."""
    require_levels(model)
    if all(is_converted(part) for part in quantized_parts(model).values()):
        return model
    twin = copy_of(model)
    for part in quantized_parts(twin).values():
        convert_(part)
    return twin


def resolved(model: nn.Module, places: Callable[[str], Iterable[str]]) -> QuantSpec | None:
    """One spec for the whole network, with a rule a module; None for full precision.

    Parameters
    ----------
    places
        From the name of a module in the network to the names that rules are to call it by.
    """
    rules: list[dict[str, Any]] = []
    parts = quantized_parts(model)
    if not parts:
        return None
    for name, choice in choices_of_parts(model):
        if choice.supported:
            setting = msgspec.to_builtins(choice.setting) or "float"
            rules += [{"match": place, choice.target: setting} for place in places(name)]
    first = spec_of(next(iter(parts.values())))
    assert first is not None
    return QuantSpec.from_dict({"rules": rules, "reestimate_bn": first.reestimate_bn})
