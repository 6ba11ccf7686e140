"""Batches that can be walked through more than once, and the sets that give them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from functools import partial
from typing import final

import torch
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


class BatchedSet(ABC):
    """What every set is: samples with a label each, int64 [N], that are cut into batches where they are wanted."""

    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def batches(self, batch_size: int, device: torch.device | str = "cpu", channels_last: bool = False) -> Batches:
        """Walk through the set in order.

        Parameters
        ----------
        batch_size
            Samples a batch; the last batch may be shorter.
        device
            Where the batches end up.
        channels_last
            Store each image or frame with the channel as the fastest axis; the shape stays.

        Returns
        -------
        Batches
            Yields `(inputs, labels)`, inputs as the class says. Can be iterated again.
        """
        make = partial(self._batch, device=torch.device(device), channels_last=channels_last)
        return Batches(len(self), batch_size, make)

    @abstractmethod
    def _batch(self, start: int, stop: int, device: torch.device, channels_last: bool) -> tuple[Tensor, Tensor]:
        """Inputs and labels of these samples."""
