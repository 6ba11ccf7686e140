"""A data set kept on the device as bytes, and batches cut from it there."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from isofire.data import Augment, EventSet, ImageSet, TensorSet
from isofire.errors import DataError, SpecError
from isofire.training.recipe import Recipe

AnySet = ImageSet | EventSet | TensorSet


class Feed:
    """Cuts batches by sample number.

    Parameters
    ----------
    data
        Images move to the device whole, as bytes; event recordings and tensors stay where they are and move batch by
        batch.
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

        Inputs are normalized images, event frames or tensors as they are, labels int64 `[N]`. Images are augmented once
        they are normalized, so that padding and cut-outs show the mean of the set.
        """
        if not isinstance(self.data, ImageSet):
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
    DataError
        If it is no set.
    """
    if not isinstance(data, AnySet):
        raise DataError(
            f"{role} must be an ImageSet, EventSet or TensorSet, got {type(data).__name__}; "
            "isofire.data.TensorSet.of(data, 'mine', 'train') makes one of pairs and batches"
        )
    if data.split == "test":
        raise SpecError(f"{role} must not be the test split ({data.name}); cut a validation set off with hold_out")


def steps_of(train_set: AnySet, valid_set: AnySet | None, recipe: Recipe, world: int) -> int:
    """Steps of an epoch in which so many processes share the images.

    Raises
    ------
    SpecError
        If there is none, or a set is a test split.
    """
    refuse_test_split(train_set, "train_set")
    if valid_set is not None:
        refuse_test_split(valid_set, "valid_set")
    steps = math.floor(len(train_set) / (recipe.batch_size * world))
    if steps == 0:
        raise SpecError(
            f"batch_size times processes must not exceed the training samples, got {recipe.batch_size} x {world} for "
            f"{len(train_set)} (recipe, {train_set.name}); lower batch_size"
        )
    return steps


def augmentation_of(train_set: AnySet, recipe: Recipe) -> Augment | None:
    """What the recipe says of augmentation; SpecError if the set cannot be augmented."""
    if not (recipe.pad or recipe.flip or recipe.cutout):
        return None
    if not isinstance(train_set, ImageSet):
        holds = "events" if isinstance(train_set, EventSet) else "tensors as they are"
        raise SpecError(
            f"pad, flip and cutout are for an isofire.data.ImageSet, {train_set.name} holds {holds} (recipe); leave "
            "them out"
        )
    return Augment(pad=recipe.pad, flip=recipe.flip, cutout=recipe.cutout)
