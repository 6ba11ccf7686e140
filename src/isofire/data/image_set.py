"""Images with their labels: one split of one data set, held in memory as bytes."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import final

import torch
from torch import Tensor

from isofire.data.batches import BatchedSet
from isofire.data.checks import check_first, check_indices, check_labels, check_split, fingerprint
from isofire.errors import DataError


@final
@dataclass(frozen=True, eq=False)
class ImageSet(BatchedSet):
    """One split of an image set; its batches are normalized, float32 [N, C, H, W], and travel to their device as bytes.

    Parameters
    ----------
    name
        The set's name, e.g. "cifar10".
    split
        "train", "valid" or "test".
    images
        uint8 [N, C, H, W], 0..255.
    labels
        int64 [N], each an index into `classes`.
    classes
        Class names.
    mean, std
        Per channel, in units of the full range (pixel / 255), of the train split.

    Raises
    ------
    SpecError
        If the split is unknown.
    DataError
        If shapes, types, counts or label values do not fit together, or the set is empty.

    Examples
    --------
    Of pixels in 0..1, and from the package:

    >>> pixels, labels = torch.rand(20, 1, 8, 8), torch.arange(20) % 10
    >>> ImageSet("mine", "train", (255 * pixels).round().to(torch.uint8), labels, tuple("0123456789"), (0.5,), (0.25,))
    ImageSet('mine', 'train', 20 images [1, 8, 8])
    >>> from isofire.data import load
    >>> test = load("digits", "test")
    >>> len(test), tuple(test.images.shape)
    (500, (500, 1, 8, 8))
    >>> images, labels = next(iter(test.batches(64)))
    >>> tuple(images.shape), images.dtype, labels.dtype
    ((64, 1, 8, 8), torch.float32, torch.int64)
    """

    name: str
    split: str
    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    _affine: dict[torch.device, tuple[Tensor, Tensor]] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        place = f"{self.name}, {self.split}"
        check_split(self.split)
        if self.images.dtype != torch.uint8 or self.images.ndim != 4:
            shape = list(self.images.shape)
            raise DataError(
                f"images must be uint8 of shape [N, C, H, W], got {self.images.dtype} {shape} ({place}); inputs that "
                "are normalised already, or of another shape, are taken as they are: give the pair (inputs, labels)"
            )
        check_labels(self.labels, len(self.images), self.classes, place)
        channels = self.images.shape[1]
        if not len(self.mean) == len(self.std) == channels:
            raise DataError(
                f"mean and std need one value a channel, got {len(self.mean)} and {len(self.std)} "
                f"for {channels} channels ({place})"
            )
        if min(self.std) <= 0:
            raise DataError(f"std must be above 0, got {min(self.std)} ({place})")

    def __repr__(self) -> str:
        return f"ImageSet({self.name!r}, {self.split!r}, {len(self)} images {list(self.images.shape[1:])})"

    @cached_property
    def fingerprint(self) -> str:
        """Hash of split, class names, mean, std, images and labels: sha256, 64 hexadecimal digits."""
        header = json.dumps(["images", self.split, self.classes, *(list(map(float, v)) for v in (self.mean, self.std))])
        return fingerprint(header, (self.images, self.labels))

    def take(self, indices: Tensor | Iterable[int]) -> ImageSet:
        """Pick samples by number, in the order given.

        Raises
        ------
        SpecError
            If a number is out of range or there are none.
        """
        picked = check_indices(indices, len(self)).to(self.images.device)
        return replace(self, images=self.images[picked], labels=self.labels[picked.to(self.labels.device)])

    def first(self, n: int) -> ImageSet:
        """Keep the first `n` samples, without copying them.

        Raises
        ------
        SpecError
            If the set holds fewer than `n`, or `n` is below 1.
        """
        check_first(n, len(self))
        return replace(self, images=self.images[:n], labels=self.labels[:n])

    def to(self, device: torch.device | str) -> ImageSet:
        """Move images and labels to a device, so that batches are cut there."""
        return replace(self, images=self.images.to(device), labels=self.labels.to(device))

    def normalize(self, images: Tensor) -> Tensor:
        """Turn bytes into `(images / 255 - mean) / std`.

        Parameters
        ----------
        images
            uint8 [N, C, H, W] on any device.

        Returns
        -------
        Tensor
            float32, same shape, device and memory layout.

        Raises
        ------
        DataError
            If the images are not uint8: floats in 0..1 or 0..255 could not be told apart.
        """
        if images.dtype != torch.uint8:
            raise DataError(f"normalize takes uint8 images in 0..255, got {images.dtype}; normalize once, from bytes")
        scale, shift = self._scale_and_shift(images.device)
        return images.to(torch.float32).mul_(scale).add_(shift)

    def _batch(self, start: int, stop: int, device: torch.device, channels_last: bool) -> tuple[Tensor, Tensor]:
        images = self.images[start:stop].to(device, non_blocking=True)
        if channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        return self.normalize(images), self.labels[start:stop].to(device, non_blocking=True)

    def _scale_and_shift(self, device: torch.device) -> tuple[Tensor, Tensor]:
        if device not in self._affine:
            mean = torch.tensor(self.mean, dtype=torch.float64).view(-1, 1, 1)
            std = torch.tensor(self.std, dtype=torch.float64).view(-1, 1, 1)
            scale, shift = 1 / (255 * std), -mean / std
            self._affine[device] = (scale.to(device, torch.float32), shift.to(device, torch.float32))
        return self._affine[device]
