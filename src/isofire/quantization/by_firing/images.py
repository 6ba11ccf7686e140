"""How many images fit where the inputs of a layer are kept."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from isofire.adapters import batch_first, find_neurons, from_rest, input_axis
from isofire.quantization.by_firing.patches import KINDS
from isofire.running import by_place, evaluating, forward, hooked

MOST_IMAGES = 256
"""Of the calibration images, at most so many are used where layers are calibrated one after the other: each layer's
inputs are kept while it is worked on, and it is run hundreds of times."""
MOST_BYTES = 512 * 2**20
"""What the inputs that are kept of a layer may take."""


def first_that_fit(model: nn.Module, batches: Sequence[Tensor]) -> tuple[list[Tensor], int]:
    """The first images of some batches, as many as keep what any layer is given below `MOST_BYTES`, and their number.

    Steps count: a network of 300 is given 300 times as much. At least one image, or, where the network may be built for
    one size of batch, one batch.
    """
    given: dict[nn.Module, int] = defaultdict(int)

    def note(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        args, _ = by_place(module, args, kwargs)
        given[module] += sum(x.numel() * x.element_size() for x in args[:1] if isinstance(x, Tensor))

    watched = {neuron for neuron, _ in find_neurons(model).values()}
    watched |= {module for module in model.modules() if isinstance(module, KINDS)}
    handles = (module.register_forward_pre_hook(note, with_kwargs=True) for module in watched)
    with hooked(handles), torch.no_grad(), evaluating(model), from_rest(model):
        forward(model, batches[0])
    axis = input_axis(model, batches[0])
    left = max(1, MOST_BYTES * batches[0].shape[axis] // max(1, *given.values(), 0))
    whole, kept = batch_first(model), list[Tensor]()
    for inputs in batches:
        images = inputs.shape[axis]
        if left < images:
            images = left if not whole else 0 if kept else images
        if images <= 0:
            break
        kept.append(inputs.narrow(axis, 0, images))
        left -= images
    return kept, sum(x.shape[axis] for x in kept)


def enough_images(images: int, most: int, got: int, needed: int) -> str:
    """The cure where `images`, of `most` that can be used, gave a layer `got` input patches and it needs more."""
    other = "quantize the layer by another method by a rule, such as 'lsq'"
    if not got or (enough := math.ceil(images * needed / got)) > most:
        return f"{other}, as the {most} images that are used at most do not give so many"
    return f"calibrate on {enough} images or more, not {images}, or {other}"
