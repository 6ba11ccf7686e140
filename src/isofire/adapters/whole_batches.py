"""What a neuron must be given to be counted: tensors of all images of the batch, and none that stand for others."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch._C._functorch import get_unwrapped, is_batchedtensor, is_functorch_wrapped_tensor

from isofire.errors import ModelError
from isofire.running import tensors_in


def require_plain(name: str, output: Any) -> None:
    """Refuse what a neuron gives inside of `torch.func.vmap`, which hides an axis and is gone after it.

    Raises
    ------
    ModelError
        If it is such.
    """
    if any(map(_is_batched, tensors_in(output))):
        raise ModelError(
            f"neurons must see plain tensors, [T, N, ...] or [N, ...] for single steps, {name!r} is called inside of "
            "torch.func.vmap, which hides an axis from it; take the neuron out of vmap: call it on the whole batch, an "
            "axis that vmap runs over standing behind N, and put vmap around the layers before and behind it alone"
        )


def of_other_images(seen: str, cure: str) -> ModelError:
    """Of neurons that see some images of the batch alone, as where it is routed to experts.

    Parameters
    ----------
    seen
        How many images which neurons saw, and of how many.
    cure
        What else can be done than to give them all.
    """
    return ModelError(
        f"neurons must see all images of the batch, {seen}; where images are routed to some of a network's layers (a "
        "mixture of experts), give each of these all images and mask what comes out of it by image, z * (expert == "
        f"i)[:, None]{cure}"
    )


def require_whole(name: str, spikes: Any, images: int, cure: str = "") -> None:
    """Refuse spikes [T, N, ...] of neither all images of a batch nor as many parts of each.

    Raises
    ------
    ModelError
        As `of_other_images`.
    """
    if isinstance(spikes, Tensor) and spikes.ndim > 1 and (spikes.shape[1] == 0 or spikes.shape[1] % images):
        raise of_other_images(f"{name!r} saw N = {spikes.shape[1]} of a batch of {images}", cure)


def _is_batched(x: Tensor) -> bool:
    while is_functorch_wrapped_tensor(x):
        if is_batchedtensor(x):
            return True
        x = get_unwrapped(x)
    return False
