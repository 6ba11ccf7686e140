"""What every data set checks about its split, its labels and the samples asked of it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from isofire.errors import DataError, SpecError

SPLITS = ("train", "valid", "test")


def check_split(split: str, allowed: Sequence[str] = SPLITS) -> None:
    """Raise `SpecError` unless `split` is one of `allowed`."""
    if split in allowed:
        return
    cure = "; cut a valid split off train with hold_out(train_set, size, seed)" if split == "valid" else ""
    raise SpecError(f"split must be one of {', '.join(allowed)}, got {split!r}{cure}")


def check_labels(labels: Tensor, count: int, classes: Sequence[str], place: str) -> None:
    """Raise `DataError` unless there are `count` > 0 labels, int64 [N], each the index of a class."""
    if labels.dtype != torch.int64 or labels.ndim != 1:
        raise DataError(f"labels must be int64 of shape [N], got {labels.dtype} {list(labels.shape)} ({place})")
    if len(labels) != count:
        raise DataError(f"every sample needs one label, got {count} samples and {len(labels)} labels ({place})")
    if count == 0:
        raise DataError(f"a set needs at least one sample, got none ({place})")
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= len(classes):
        wrong = low if low < 0 else high
        raise DataError(f"labels must lie in 0..{len(classes) - 1}, got {wrong} ({place}); the file is altered")


def check_indices(indices: Tensor | Iterable[int], count: int) -> Tensor:
    """Return `indices` as an int64 tensor [M], M >= 1, each in 0..`count` - 1.

    Raises
    ------
    SpecError
        If there are none, one is out of range, or they are not whole numbers (a boolean mask is not accepted).
    """
    picked = indices if isinstance(indices, Tensor) else torch.as_tensor(list(indices))
    if picked.ndim != 1 or picked.numel() == 0:
        raise SpecError(f"indices must be a list of at least one sample number, got shape {list(picked.shape)}")
    if picked.dtype == torch.bool or picked.is_floating_point() or picked.is_complex():
        raise SpecError(f"indices must be whole numbers, got {picked.dtype}; turn a mask into numbers with nonzero()")
    picked = picked.to("cpu", torch.int64)
    low, high = int(picked.min()), int(picked.max())
    if low < 0 or high >= count:
        raise SpecError(f"indices must lie in 0..{count - 1}, got {low if low < 0 else high}")
    return picked


def check_first(n: int, count: int) -> None:
    """Raise `SpecError` unless the first `n` of `count` samples can be had."""
    if not 1 <= n <= count:
        raise SpecError(f"n must lie in 1..{count} (the set's size), got {n}")


def fingerprint(header: str, tensors: Iterable[Tensor]) -> str:
    """Hash a header and the shape, type and bytes of each tensor: sha256, 64 hexadecimal digits."""
    digest = hashlib.sha256(header.encode())
    for tensor in tensors:
        array = tensor.detach().cpu().contiguous().numpy()
        little = array.astype(array.dtype.newbyteorder("<"), copy=False)
        digest.update(f"|{little.dtype.str}{list(little.shape)}|".encode())
        digest.update(little.data)
    return digest.hexdigest()
