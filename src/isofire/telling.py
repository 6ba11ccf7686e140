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
    rows = _rows(inputs, axis)
    order = torch.argsort(-telling(inputs, axis), stable=True).tolist()
    chosen: list[int] = []
    for place in order:
        if len(chosen) < count and not any(torch.equal(rows[place], rows[other]) for other in chosen):
            chosen.append(place)
    chosen += [place for place in order if place not in chosen][: max(count - len(chosen), 0)]
    return inputs.index_select(axis, torch.tensor(chosen, device=inputs.device))


def telling(inputs: Tensor, axis: int) -> Tensor:
    """Of each image how much it tells, int64 [N]: 0 if it is blank and so may be events, 1 for events (whole numbers
    from 0 on, or -1, 0 and 1) that differ, 2 for a real number that is the same everywhere, 3 for real numbers."""
    rows = _rows(inputs, axis)
    varied = (rows != rows[:, :1]).any(1)
    if not rows.is_floating_point() and not rows.is_complex():
        rows = rows.double()
    if rows.is_complex():
        real = torch.ones_like(varied)
    else:
        real = ~((rows == rows.round()).all(1) & ((rows >= 0).all(1) | (rows.abs() <= 1).all(1)))
    return (2 * real.long() + varied.long()).cpu()


class Most:
    """What was told so far, batch by batch."""

    def __init__(self) -> None:
        self._told = -1

    def grows(self, inputs: Tensor, axis: int) -> bool:
        """Whether an image of the batch tells more than all before; so of the first batch."""
        if self._told == _MOST:
            return False
        told = int(telling(inputs, axis).max())
        grown, self._told = told > self._told, max(told, self._told)
        return grown


def _rows(inputs: Tensor, axis: int) -> Tensor:
    """[N, numbers of an image]."""
    return inputs.detach().movedim(axis, 0).flatten(1) if inputs.ndim > 1 else inputs.detach().unsqueeze(1)
