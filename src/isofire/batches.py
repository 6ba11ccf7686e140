"""The forms in which a comparison takes its data, brought to one: checked batches of (inputs, labels)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sized
from typing import Any, Protocol, SupportsIndex, runtime_checkable

import torch
from torch import Tensor

from isofire.errors import DataError, SpecError


@runtime_checkable
class BatchSource(Protocol):
    """A data set that cuts itself into batches, such as `isofire.data.ImageSet`."""

    def batches(self, batch_size: int) -> Iterable[tuple[Tensor, Tensor]]:
        """Batches of (inputs [N, ...], labels [N])."""
        ...


AxisOf = Callable[[Tensor, Tensor], int]
"""Inputs and labels -> the axis of the inputs that holds the images."""

Data = BatchSource | tuple[Tensor, Tensor] | Iterable[tuple[Tensor, Tensor]]


def read_batches(
    data: Data, batch_size: int, max_images: int | None = None, axis: AxisOf | None = None
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield (inputs [N, ...] or frames [T, N, ...], labels int [N]) until the data or `max_images` end.

    Parameters
    ----------
    data
        A `BatchSource`, a pair of tensors (inputs, labels), or an iterable of batches.
    batch_size
        For the first two; an iterable keeps its own batches.
    axis
        Which axis of inputs holds the images, such as `isofire.adapters.axis_by(model)`, which asks the network where
        both are as long as the labels. Without a network, `image_axis`.

    Raises
    ------
    SpecError
        If `batch_size` or `max_images` is below 1 or no whole number.
    DataError
        If there is no image, a batch is not a pair of inputs and as many integer labels, or an input is not finite.
    """
    require_count("batch_size", batch_size)
    if max_images is not None:
        require_count("max_images", max_images)
    axis = image_axis if axis is None else axis
    return _limited(_open(data, int(batch_size), axis), max_images, axis)


def require_count(name: str, value: object) -> None:
    """Raise SpecError unless the argument `name` is a number of images, or of blocks of them."""
    if not isinstance(value, SupportsIndex) or isinstance(value, bool):
        raise SpecError(f"{name} must be a whole number, got {value!r}")
    if not 1 <= value.__index__() < 2**63:
        raise SpecError(f"{name} must be {'at least 1' if value.__index__() < 1 else 'below 2^63'}, got {value}")


def count_images(data: Data, max_images: int | None = None) -> int | None:
    """How many images there will be; None where the data do not tell before they are read."""
    batches = data if isinstance(data, list) else [data] if isinstance(data, tuple) else None
    if batches is not None:
        # what is no batch is told when it is read
        labels = [batch[1] for batch in batches if isinstance(batch, tuple | list) and len(batch) == 2]
        found = sum(len(item) for item in labels if isinstance(item, Tensor) and item.ndim)
    else:
        # a DataLoader's own length is that of its batches
        source = getattr(data, "sampler", data if isinstance(data, BatchSource) else None)
        found = getattr(data, "size", None) or (len(source) if isinstance(source, Sized) else None)
    if not isinstance(found, int) or found == 0:
        return max_images
    return found if max_images is None else min(found, max_images)


def _open(data: Data, batch_size: int, axis: AxisOf) -> Iterable[Any]:
    batches = as_batches(data, batch_size)
    if not is_pair(data):
        return batches
    (inputs, labels), *_ = batches
    return zip(inputs.split(batch_size, axis(inputs, labels)), labels.split(batch_size), strict=True)


def as_batches(data: Any, batch_size: int, place: str = "data") -> Iterable[Any]:
    """Data as batches that have not been looked at yet; a pair of tensors, checked, is a list of one.

    Parameters
    ----------
    batch_size
        Of what cuts itself.
    place
        What the data are called in errors.

    Raises
    ------
    DataError
        If they are none of `Data`.
    """
    if isinstance(data, BatchSource):
        return data.batches(batch_size)
    if is_pair(data):
        return [check_batch(data, place)]
    if isinstance(data, Iterable) and not isinstance(data, Tensor | dict | str):
        return data
    cure = "; the labels belong to it, (inputs, labels)" if isinstance(data, Tensor) else ""
    raise DataError(
        f"{place} must be an image set, a pair of tensors (inputs, labels) or an iterable of such pairs, "
        f"got {type(data).__name__}{cure}"
    )


def is_pair(data: Any) -> bool:
    """Whether data are meant as one pair (inputs, labels), and not as two batches."""
    if not isinstance(data, tuple) or all(_holds_two(part) for part in data):
        return False
    # tensors side by side are no batches, however many they are
    return len(data) == 2 or any(isinstance(part, Tensor) for part in data)


def _holds_two(part: Any) -> bool:
    return isinstance(part, tuple | list) and len(part) == 2 and all(isinstance(item, Tensor) for item in part)


def _limited(batches: Iterable[Any], max_images: int | None, axis: AxisOf) -> Iterator[tuple[Tensor, Tensor]]:
    seen = 0
    for number, batch in enumerate(batches):
        inputs, labels = check_batch(batch, f"batch {number}")
        if inputs.is_floating_point() and not bool(torch.isfinite(inputs).all()):
            # NaN silences neurons in every network alike, which would look like agreement
            raise DataError(
                f"images must be finite, batch {number} holds NaN or infinite values; look at how they were normalised"
            )
        if max_images is not None and seen + len(labels) >= max_images:
            left = max_images - seen
            yield inputs.narrow(axis(inputs, labels), 0, left), labels[:left]
            return
        seen += len(labels)
        yield inputs, labels
    if seen == 0:
        raise DataError("data must hold at least one image, got none; an iterator that was used up gives none either")


def image_axis(inputs: Tensor, labels: Tensor) -> int:
    """Axis of the images where no network can be asked: 1 for frames [T, N, C, H, W] and where only that axis is as
    long as the labels, else 0. With a network, see `isofire.adapters.input_axis`.
    """
    time_first = inputs.ndim > 1 and inputs.shape[1] == len(labels)
    return 1 if time_first and (inputs.ndim == 5 or inputs.shape[0] != len(labels)) else 0


def check_batch(batch: Any, place: str) -> tuple[Tensor, Tensor]:
    """Inputs and labels that fit together, as they are.

    Parameters
    ----------
    place
        What the batch is called in errors.

    Raises
    ------
    DataError
        If they do not; says what would.
    """
    if not isinstance(batch, tuple | list) or len(batch) != 2 or not all(isinstance(part, Tensor) for part in batch):
        raise DataError(f"{place} must be a pair of tensors (inputs, labels), got {_shown(batch)}{_cure_of(batch)}")
    inputs, labels = batch
    for name, part in (("inputs", inputs), ("labels", labels)):
        if part.layout is not torch.strided:
            raise DataError(f"{place} must hold dense tensors, its {name} are {part.layout}; give {name}.to_dense()")
    fits = inputs.ndim > 0 and labels.ndim == 1 and len(labels) in inputs.shape[:2]
    if labels.is_floating_point() or not fits:
        raise DataError(
            f"{place} must hold inputs [N, ...] or [T, N, ...] and integer labels [N], got {list(inputs.shape)} and "
            f"{labels.dtype} {list(labels.shape)}{_cure(inputs, labels)}"
        )
    if len(labels) == 0:
        raise DataError(f"{place} must hold at least one image, got none")
    return inputs, labels


_NAMED = 4
"""Parts of a batch that an error names."""


def _shown(batch: Any) -> str:
    if isinstance(batch, tuple | list) and 2 <= len(batch) <= _NAMED:
        return f"({', '.join(type(part).__name__ for part in batch)})"
    return type(batch).__name__


def _cure_of(batch: Any) -> str:
    """What makes a pair of tensors of it."""
    kinds = {type(part).__name__ for part in (batch if isinstance(batch, tuple | list) else [batch])}
    if isinstance(batch, dict):
        keys = ", ".join(map(repr, batch))
        return f" of {keys}; give [(batch[INPUTS], batch[LABELS]) for batch in data], with two of these keys"
    if isinstance(batch, tuple | list) and len(batch) > 2 and isinstance(batch[0], Tensor):
        return "; return two of them, or give [(inputs, labels) for inputs, labels, *_ in data]"
    if "ndarray" in kinds:
        return "; make tensors of arrays, (torch.from_numpy(inputs), torch.from_numpy(labels).long())"
    if kinds & {"Tensor", "list", "int", "float"}:
        return "; make it (torch.as_tensor(inputs), torch.as_tensor(labels)), with a label for each of N inputs"
    return ""


def _cure(inputs: Tensor, labels: Tensor) -> str:
    """What is wrong with a pair of tensors, and what to do."""
    if labels.ndim == 0:
        return (
            "; that is a single sample: give them stacked, (torch.stack(inputs), torch.tensor(labels)), or as a "
            "torch.utils.data.DataLoader"
        )
    if labels.ndim == 2 and labels.shape[1] == 1 and len(labels) in inputs.shape[:2]:
        return "; of one label a row give labels.squeeze(1)"
    if labels.ndim == 2 and len(labels) in inputs.shape[:2]:
        return "; of one-hot labels or scores give labels.argmax(1)"
    if labels.ndim == 1 and len(labels) not in inputs.shape[:2]:
        return f"; {len(labels)} labels need as many inputs"
    return "; give labels.long()" if labels.is_floating_point() and labels.ndim == 1 else ""
