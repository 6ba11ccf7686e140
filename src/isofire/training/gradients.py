"""Gradients of a step's loss."""

from __future__ import annotations

from torch import Tensor
from torch.utils.checkpoint import CheckpointError as Recomputed

from isofire.errors import ModelError


def backward(total: Tensor) -> None:
    """Differentiate the loss.

    Raises
    ------
    ModelError
        If the network computes parts of its forward anew (activation checkpointing), where a loss has listened.
    """
    try:
        total.backward()
    except Recomputed as error:
        raise ModelError(
            "the network's activation checkpointing computes parts of its forward anew, and these came out otherwise: "
            "by a loss that listens to membranes (`membrane`), which the first forward alone hears, or since the "
            "forward is not the same when it runs again; train without that loss, or without torch.utils.checkpoint"
        ) from error
