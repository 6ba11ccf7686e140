"""Numbers between torch and the arrays of a graph's nodes."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


def array_of(values: Tensor) -> np.ndarray:
    """float32, apart from the tensor."""
    return values.detach().to("cpu", torch.float32).numpy().copy()


def tensor_of(values: Any) -> Tensor:
    """float32, apart from the array."""
    return torch.from_numpy(np.array(values, dtype=np.float32))


def sizes_of(values: Any, axes: int) -> tuple[int, ...]:
    """One number for each axis, of one for all or of as many."""
    found = [int(value) for value in np.atleast_1d(np.asarray(values))]
    return tuple(found * axes if len(found) == 1 else found)


def filled(layer: Any, weight: Tensor, bias: Tensor | None) -> nn.Module:
    """The layer, with these numbers in it."""
    with torch.no_grad():
        layer.weight.copy_(weight)
        if bias is not None:
            layer.bias.copy_(bias)
    return layer
