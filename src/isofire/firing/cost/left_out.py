"""What a count of operations leaves out, by name and with its share of the network's weights."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from torch import nn


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """One part of a network that a number does not contain.

    Parameters
    ----------
    name
        The module, or the layer.
    reason
        Why, in words.
    share
        Its part of what the number counts: of the network's weights, or of its operations, as `of` says.
    of
        "weights" or "operations".
    """

    name: str
    reason: str
    share: float
    of: str

    def __str__(self) -> str:
        return f"{self.name}: {self.reason} ({self.share:.1%} of {self.of})"


def left_out(model: nn.Module, unknown: Iterable[tuple[str, str]], sites: set[str]) -> tuple[LeftOut, ...]:
    """Modules in which operations happened that no rule knows."""
    weights = {name: item for name, item in model.named_parameters() if item.ndim > 1}
    total = sum(item.numel() for item in weights.values())
    found = []
    for module, operation in dict.fromkeys(unknown):
        inside = {name: item for name, item in weights.items() if not module or name.startswith(module + ".")}
        own = [item for name, item in inside.items() if name not in sites and name.rpartition(".")[0] not in sites]
        share = sum(item.numel() for item in own) / total if total else 0.0
        reason = f"{operation} is not known, what it multiplies is not counted"
        found.append(LeftOut(name=module or "(model)", reason=reason, share=share, of="weights"))
    return tuple(found)
