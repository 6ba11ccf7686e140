"""A data set kept on the device as bytes, and batches cut from it there."""

from __future__ import annotations

import torch
from torch import Tensor

from isofire.data import Augment, EventSet, ImageSet
from isofire.errors import SpecError

AnySet = ImageSet | EventSet


class Feed:
    """Cuts batches by sample number.

    Parameters
    ----------
    data
        Images move to the device whole, as bytes; event recordings stay where they are and move batch by batch.
    device
        Where the batches are wanted.
    channels_last
        Memory layout of the batches.
    """

    def __init__(self, data: AnySet, device: torch.device, channels_last: bool) -> None:
        self.data = data.to(device) if isinstance(data, ImageSet) else data
        self.device = device
        self.channels_last = channels_last

    def __len__(self) -> int:
        return len(self.data)

    def place(self, order: Tensor) -> Tensor:
        """Put sample numbers where `cut` wants them, once for many batches: a copy per batch would stall a GPU."""
        return order.to(self.device) if isinstance(self.data, ImageSet) else order

    def cut(
        self, index: Tensor, augment: Augment | None = None, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Give the samples of `index`, from `place`, as `(inputs, labels)`.

        Inputs are normalized images or event frames, labels int64 `[N]`. Images are augmented once they are
        normalized, so that padding and cut-outs show the mean of the set.
        """
        if isinstance(self.data, EventSet):
            return next(iter(self.data.take(index).batches(len(index), self.device, self.channels_last)))
        images = self.data.images[index]
        if self.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        images = self.data.normalize(images)
        if augment is not None and generator is not None:
            images = augment(images, generator)
        return images, self.data.labels[index]


def refuse_test_split(data: AnySet, role: str) -> None:
    """Keep test images out of training and of the choice of an epoch.

    Raises
    ------
    SpecError
        If the set is a test split.
    """
    if data.split == "test":
        raise SpecError(f"{role} must not be the test split ({data.name}); cut a validation set off with hold_out")
