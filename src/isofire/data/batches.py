"""Batches that can be walked through more than once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import final

from torch import Tensor

from isofire.errors import SpecError


@final
class Batches:
    """The batches of a set, in the set's order, made one at a time; every `for` starts again at the first.

    Parameters
    ----------
    count
        Samples in the set.
    batch_size
        Samples a batch; the last batch holds what is left and may be shorter.
    make
        Called with the half-open sample range `(start, stop)`; returns `(inputs, labels)`.

    Raises
    ------
    SpecError
        If `batch_size` is below 1.

    Examples
    --------
    >>> import torch
    >>> batches = Batches(5, 2, lambda start, stop: (torch.arange(start, stop), torch.zeros(stop - start)))
    >>> [inputs.tolist() for inputs, _ in batches], len(batches)
    ([[0, 1], [2, 3], [4]], 3)
    """

    def __init__(self, count: int, batch_size: int, make: Callable[[int, int], tuple[Tensor, Tensor]]) -> None:
        if batch_size < 1:
            raise SpecError(f"batch_size must be 1 or more, got {batch_size}")
        self.count = count
        self.batch_size = batch_size
        self._make = make

    def __len__(self) -> int:
        return -(-self.count // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for start in range(0, self.count, self.batch_size):
            yield self._make(start, min(start + self.batch_size, self.count))
