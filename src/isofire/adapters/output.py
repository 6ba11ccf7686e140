"""What a model returns, brought to logits with the images on the last axis but one."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from isofire.adapters.registry import batch_first
from isofire.errors import ModelError


def read_logits(model: nn.Module, output: Any, images: int) -> Tensor:
    """Logits [T, N, classes] or [N, classes] in what `model` returned for `images` inputs.

    Of a tuple, such as (spikes, membranes) or (output, state), the first is meant. A model of batch-first neurons
    (Sinabs) gives [N, T, classes], and may give [T, N, classes] where T is not N. In (spikes [T, N, classes], ...) the
    spikes are the logits: classes are told by their rates.

    Raises
    ------
    ModelError
        If there are no such logits.
    """
    first = output[0] if isinstance(output, tuple | list) and len(output) else output
    if isinstance(first, Tensor) and first.ndim == 3 and first.shape[0] == images and batch_first(model):
        first = first.transpose(0, 1)
    if not isinstance(first, Tensor) or first.ndim not in (2, 3) or first.shape[-2] != images:
        given = list(first.shape) if isinstance(first, Tensor) else type(first).__name__
        raise ModelError(f"a model must give logits [T, {images}, classes] or [{images}, classes], got {given}")
    return first
