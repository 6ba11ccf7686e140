"""Inputs of any shape with their labels, as a user has them: one split held in memory, taken as it is."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import final

import torch
from torch import Tensor

from isofire.batches import Data, as_batches, check_batch
from isofire.data.batches import BatchedSet
from isofire.data.checks import check_first, check_indices, check_labels, check_split, fingerprint
from isofire.errors import DataError

MOST_BYTES = 8 * 2**30
"""Of batches that are kept together in memory."""
_CUT = 256
"""Samples a batch of what cuts itself."""


@final
@dataclass(frozen=True, eq=False)
class TensorSet(BatchedSet):
    """One split of a set of tensors, which go to the network as they are, already normalized.

    Parameters
    ----------
    name, split
        As in `ImageSet`.
    inputs
        [N, ...], or frames [T, N, ...] with `axis` 1; any type.
    labels
        int64 [N].
    classes
        Class names.
    axis
        Which axis of `inputs` holds the samples, 0 or 1.

    Raises
    ------
    SpecError
        If the split is unknown.
    DataError
        If inputs and labels do not fit together, or the set is empty.

    Examples
    --------
    >>> made = TensorSet.of((torch.rand(6, 4), torch.arange(6) % 3), "mine", "train")
    >>> len(made), made.classes, made.take([4, 5]).labels.tolist()
    (6, ('0', '1', '2'), [1, 2])
    """

    name: str
    split: str
    inputs: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    axis: int = 0

    def __post_init__(self) -> None:
        check_split(self.split)
        count = self.inputs.shape[self.axis] if self.inputs.ndim > self.axis else 0
        check_labels(self.labels, count, self.classes, f"{self.name}, {self.split}")

    @classmethod
    def of(cls, data: Data, name: str, split: str, most_bytes: int = MOST_BYTES) -> TensorSet:
        """From a pair of tensors, which are not copied, or from batches, which are put together in memory.

        Classes are counted from the labels, and the axis of the samples is the one that is as long as the labels.

        Raises
        ------
        DataError
            If they are no inputs and labels, not finite, more than `most_bytes`, other ones when they are walked
            through again, or do not say which axis holds the samples.
        """
        place = f"{name} ({split})"
        parts = _walked(data, place, most_bytes)
        axis = _axis(parts, place)
        inputs = parts[0][0] if len(parts) == 1 else torch.cat([inputs for inputs, _ in parts], axis)
        labels = torch.cat([labels for _, labels in parts]).long()
        if inputs.is_floating_point() and not bool(torch.isfinite(inputs).all()):
            raise DataError(f"inputs of {place} hold NaN or infinite values; look at how they were normalised")
        if int(labels.min()) < 0:
            raise DataError(f"labels of {place} must be 0 or more, got {int(labels.min())}; leave such samples out")
        classes = tuple(map(str, range(int(labels.max()) + 1)))
        return cls(name, split, inputs, labels, classes, axis)

    def __repr__(self) -> str:
        return f"TensorSet({self.name!r}, {self.split!r}, {len(self)} inputs {list(self.inputs.shape)})"

    @cached_property
    def fingerprint(self) -> str:
        """Hash of split, class names, axis, type, inputs and labels: sha256, 64 hexadecimal digits."""
        header = json.dumps(["tensors", self.split, self.classes, self.axis, str(self.inputs.dtype)])
        # NumPy has no bfloat16
        known = self.inputs.view(torch.int16) if self.inputs.dtype == torch.bfloat16 else self.inputs
        return fingerprint(header, (known, self.labels))

    def take(self, indices: Tensor | Iterable[int]) -> TensorSet:
        """Pick samples by number, in the order given; see `ImageSet.take`."""
        picked = check_indices(indices, len(self))
        return replace(self, inputs=self.inputs.index_select(self.axis, picked), labels=self.labels[picked])

    def first(self, n: int) -> TensorSet:
        """Keep the first `n` samples, without copying them; see `ImageSet.first`."""
        check_first(n, len(self))
        return replace(self, inputs=self.inputs.narrow(self.axis, 0, n), labels=self.labels[:n])

    def _batch(self, start: int, stop: int, device: torch.device, channels_last: bool) -> tuple[Tensor, Tensor]:
        inputs = self.inputs.narrow(self.axis, start, stop - start).to(device, non_blocking=True)
        if channels_last and inputs.ndim == 4 and self.axis == 0:
            inputs = inputs.contiguous(memory_format=torch.channels_last)
        return inputs, self.labels[start:stop].to(device, non_blocking=True)


def _walked(data: Data, place: str, most_bytes: int) -> list[tuple[Tensor, Tensor]]:
    """All batches on the CPU; a pair of tensors is one batch."""
    batches = as_batches(data, _CUT, place)
    parts: list[tuple[Tensor, Tensor]] = []
    size, is_pair = 0, isinstance(batches, list) and len(batches) == 1
    for number, batch in enumerate(batches):
        inputs, labels = check_batch(batch, place if is_pair else f"batch {number} of {place}")
        size += inputs.numel() * inputs.element_size()
        if not is_pair and size > most_bytes:
            raise DataError(
                f"the batches of {place} must fit in {most_bytes / 2**30:g} GiB, in which they are kept together here, "
                f"and do not after {number} of them; give fewer samples, or an isofire.data.ImageSet, whose pixels "
                "take a byte each"
            )
        parts.append((inputs.detach().cpu(), labels.detach().cpu()))
    if not parts:
        raise DataError(f"data must hold at least one image, {place} holds none")
    if not is_pair:
        _check_same_again(batches, parts[0], place)
    return parts


def _check_same_again(batches: Iterable[tuple[Tensor, Tensor]], first: tuple[Tensor, Tensor], place: str) -> None:
    """What a cell is called by must not change from process to process."""
    again = check_batch(next(iter(batches)), f"batch 0 of {place}")
    if not all(torch.equal(one, other.cpu()) for one, other in zip(first, again, strict=True)):
        raise DataError(
            f"batches must be the same ones each time they are walked through, here they are known by their contents; "
            f"batch 0 of {place} was another the second time; give shuffle=False and no random augmentation"
        )


def _axis(parts: list[tuple[Tensor, Tensor]], place: str) -> int:
    """The axis of the samples in all batches."""
    fits = [
        axis
        for axis in (0, 1)
        if all(inputs.ndim > axis and inputs.shape[axis] == len(labels) for inputs, labels in parts)
    ]
    shapes = {(*inputs.shape[:axis], *inputs.shape[axis + 1 :]) for axis in fits[:1] for inputs, _ in parts}
    if len(fits) == 2:
        raise DataError(
            f"one axis of inputs must be as long as the labels, both axes of {list(parts[0][0].shape)} are "
            f"({place}), so which holds the samples cannot be told from time steps or channels; give another number of "
            "samples, or of samples a batch"
        )
    if not fits or len(shapes) > 1:
        raise DataError(
            f"the batches of {place} must have the same axis of samples and be alike besides, got "
            f"{', '.join(sorted({str(list(inputs.shape)) for inputs, _ in parts}))}; bring them to one shape"
        )
    return fits[0]
