"""A few of a batch's images, for what needs to be looked at once."""

from __future__ import annotations

from torch import Tensor, nn

from isofire.adapters import batch_first, input_axis


def first_images(model: nn.Module, inputs: Tensor, count: int) -> Tensor:
    """The first `count` images of a batch, or all of it where the network was built for batches of one size."""
    axis = input_axis(model, inputs)
    return inputs if batch_first(model) else inputs.narrow(axis, 0, min(count, inputs.shape[axis]))
