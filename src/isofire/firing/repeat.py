"""Whether a network gives the same for the same images again. What it keeps from one batch to the next, isofire brings
to rest in neurons that it knows; a readout that adds up by itself, or a counter, makes every number depend on what was
shown before."""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from isofire.adapters import from_rest
from isofire.adapters.axes import unheard
from isofire.errors import ModelError
from isofire.firing.cost.synops_per_spike import few_of
from isofire.running import device_of, drawing, forward

_LOG = logging.getLogger(__name__)
_RTOL = 1e-3
"""Kernels may add up in another order; what is kept of a batch is more than that."""


def tell_unlike(model: nn.Module, inputs: Tensor, images: int) -> None:
    """Show a network a few images twice, each time from rest, and log a warning if it gives something else.

    Parameters
    ----------
    inputs
        A batch of so many images, as the model takes them.
    """
    part, _ = few_of(model, inputs, images)
    outputs = []
    try:
        with unheard(model), from_rest(model), torch.inference_mode():
            for _ in range(2):
                with drawing(0, device_of(model, inputs.device)):
                    outputs.append(_copied(forward(model, part)))
    except ModelError:
        # told with the inputs that were given, once it is shown all of them
        return
    if not _alike(*outputs):
        _LOG.warning(
            "%s gives other numbers when the same images are shown again: it keeps something from one batch to the "
            "next (a state of its own, a counter), or draws random numbers by another generator than torch's, so that "
            "what is measured depends on batches and their order; let its forward begin at rest, or register the "
            "class that keeps it (isofire.adapters.register)",
            type(model).__name__,
        )


def _copied(output: Any) -> list[Tensor]:
    # a state that is handed out may be worked on further
    return [x.detach().clone() for x in tree_leaves(output) if isinstance(x, Tensor)]


def _alike(first: list[Tensor], second: list[Tensor]) -> bool:
    return len(first) == len(second) and all(map(_close, first, second))


def _close(a: Tensor, b: Tensor) -> bool:
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    if not (a.is_floating_point() or a.is_complex()):
        return torch.equal(a, b)
    size = a.abs()
    size = size[torch.isfinite(size)]
    atol = _RTOL * float(size.max()) if size.numel() else 0.0
    return torch.allclose(a, b, rtol=_RTOL, atol=atol, equal_nan=True)
