"""Checks that more than one room needs."""

from __future__ import annotations

import torch
from torch import nn

from isofire.errors import ModelError


def require_finite(model: nn.Module) -> None:
    """Every parameter and buffer of floating point must be finite.

    A NaN weight silences its neurons instead of showing in the output, so it has to be looked for.

    Raises
    ------
    ModelError
        Names the first tensor with NaN or infinite values.
    """
    with torch.no_grad():
        for name, tensor in (*model.named_parameters(), *model.named_buffers()):
            if tensor.is_floating_point() and not tensor.is_meta and not bool(torch.isfinite(tensor).all()):
                bad = int((~torch.isfinite(tensor)).sum())
                raise ModelError(
                    f"weights must be finite, {name!r} of {type(model).__name__} has {bad} NaN or infinite values; "
                    "if the training diverged, go back to an earlier checkpoint"
                )
