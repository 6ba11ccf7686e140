"""Which images of a batch tell most of a network, where a few of them stand for all.

A blank image drives nothing, and its zeros are whole numbers, as events are; two images that are alike do not tell
which is which.
"""

from __future__ import annotations

import torch
from torch import Tensor

_MOST = 3
"""Of `telling`: real numbers that differ."""


def pick(inputs: Tensor, axis: int, count: int) -> Tensor:
    """At most `count` images of a batch, those that tell most first, and no two that are alike if there are others.

    Parameters
    ----------
    inputs
        A batch, [N, ...] or [T, N, ...].
    axis
        Of the images.

    Examples
    --------
    >>> pick(torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 0.0], [0.4, 0.7], [0.4, 0.7]]), 0, 2)
    tensor([[0.4000, 0.7000],
            [1.0000, 0.0000]])
    """
    images = _images(inputs, axis)
    order = torch.argsort(-telling(inputs, axis), stable=True).tolist()
    chosen: list[int] = []
    for place in order:
        if len(chosen) < count and not any(torch.equal(images[place], images[other]) for other in chosen):
            chosen.append(place)
    chosen += [place for place in order if place not in chosen][: max(count - len(chosen), 0)]
    return inputs.index_select(axis, torch.tensor(chosen, device=inputs.device))


def telling(inputs: Tensor, axis: int) -> Tensor:
    """Of each image how much it tells, int64 [N]: 0 if it is blank and so may be events, 1 for events (whole numbers
    from 0 on, or -1, 0 and 1) that differ, 2 for real numbers that are the same everywhere, 3 for real numbers.

    Numbers that differ do so within a channel: what normalizes images gives each channel of a blank one another number.
    """
    images = _comparable(_images(inputs, axis))
    if images.is_complex():
        varied = _varies(images.real, axis) | _varies(images.imag, axis)
        real = torch.ones_like(varied)
    else:
        varied = _varies(images, axis)
        axes = tuple(range(1, images.ndim))
        low, high = images.amin(axes).float(), images.amax(axes).float()
        real = (low < -1) | ((low < 0) & (high > 1))
        if images.is_floating_point():
            # image by image, so that no second batch is held
            real |= torch.stack([(image != image.round()).any() for image in images])
    return (2 * real.long() + varied.long()).cpu()


class Most:
    """What was told so far, batch by batch."""

    def __init__(self) -> None:
        self._told = -1

    @property
    def varied(self) -> bool:
        """Whether what tells most differs within an image."""
        return self._told % 2 == 1

    def grows(self, inputs: Tensor, axis: int) -> bool:
        """Whether an image of the batch tells more than all before; so of the first batch."""
        if self._told == _MOST:
            return False
        told = int(telling(inputs, axis).max())
        grown, self._told = told > self._told, max(told, self._told)
        return grown


def _varies(images: Tensor, axis: int) -> Tensor:
    """Whether numbers differ along the last axis, or the last two where a channel's axis is before them, bool [N]."""
    while images.ndim > 2 and images.shape[-1] == 1:
        images = images.squeeze(-1)
    axes = (-2, -1) if images.ndim - axis > 3 else (-1,)
    return (images.amin(axes) != images.amax(axes)).reshape(len(images), -1).any(1)


def _comparable(images: Tensor) -> Tensor:
    """In a type that has an order in torch."""
    if images.dtype in (torch.uint16, torch.uint32, torch.uint64):
        return images.to(torch.int32 if images.dtype == torch.uint16 else torch.float64)
    return images.half() if images.is_floating_point() and images.itemsize == 1 else images


def _images(inputs: Tensor, axis: int) -> Tensor:
    """[N, ...], an image's numbers on one axis at least."""
    return inputs.detach().movedim(axis, 0) if inputs.ndim > 1 else inputs.detach().unsqueeze(1)
