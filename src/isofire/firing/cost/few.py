"""Asking a network something on few images of a batch, or on the whole batch where its size is written in."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from torch import Tensor, nn

from isofire.adapters import find_neurons, input_axis
from isofire.errors import ModelError
from isofire.running import device_of
from isofire.telling import pick

Answer = TypeVar("Answer")


def few_or_all(
    model: nn.Module, inputs: Tensor, images: int, most: int, ask: Callable[[Tensor], Answer]
) -> tuple[Tensor, int, Answer]:
    """What a network answers on few images of a batch, as `isofire.telling.pick` takes them; on all of them, in their
    order, where it fails on the few or has neurons that are built for one size of batch.

    Parameters
    ----------
    inputs, images
        A batch as the model takes it, and how many images it holds.
    most
        How many are few.
    ask
        Called with images, where the model is.

    Returns
    -------
    The images that were asked about, their number, and the answer.

    Raises
    ------
    ModelError
        What `ask` raises on the whole batch.
    DataError
        As `isofire.adapters.input_axis`.
    """
    axis, device = input_axis(model, inputs, images), device_of(model, inputs.device)
    built = any(adapter.batch_size(neuron) for neuron, adapter in find_neurons(model).values())
    if not built:
        few = pick(inputs, axis, most).to(device)
        try:
            return few, few.shape[axis], ask(few)
        except ModelError:
            if few.shape[axis] == images:
                raise
    whole = inputs.clone().to(device)
    return whole, images, ask(whole)
