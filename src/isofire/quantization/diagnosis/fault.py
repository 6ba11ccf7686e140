"""One thing that is wrong with a layer, why, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

LEAST_SPIKES = 10
"""Spikes that full precision must have made before their absence counts: of ten that are expected by chance, none at
all comes once in 20,000."""


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What was found in one layer of neurons.

    Parameters
    ----------
    layer
        Its name.
    state
        "broken": the layer cannot do its work. "note": it works, otherwise than in full precision.
    found, cure
        What and why; what to do about it.
    """

    layer: str
    state: Literal["broken", "note"]
    found: str
    cure: str

    def __str__(self) -> str:
        return f"{self.layer}: {self.found}; {self.cure}"
