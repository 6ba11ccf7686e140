"""Codes of quantized weights in a node's metadata, for tools that run whole numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from isofire.quantizers.lattice import codes_of

CODES, STEP = "codes", "step"
"""Of a node: whole numbers of the weight's shape, int8 where they fit; what one is, float64 [out]."""


def note_codes_(node: Any, module: Any) -> None:
    """Add the codes of a layer's weight, where it lies on evenly spaced levels with one distance an output."""
    if not isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d):
        return
    found = codes_of(module.weight, 16)
    if not found.exact:
        return
    low, high = int(found.codes.min()), int(found.codes.max())
    kind = next(
        kind for kind in (torch.int8, torch.int32) if torch.iinfo(kind).min <= low and high <= torch.iinfo(kind).max
    )
    node.metadata[CODES] = found.codes.to(kind).numpy()
    node.metadata[STEP] = np.ascontiguousarray(found.step.numpy())
