"""Which memory a tensor lies in, and that it is not given to another tensor while it is asked about."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

Held = StorageWeakRef
"""While it is held, no other tensor gets the memory's number; the numbers in it are freed as ever."""


def place(x: Tensor) -> int | None:
    """The number of the memory that a dense tensor lies in; views have that of what they view.

    None where there is no one memory: sparse and nested tensors, and those that stand for others inside of
    `torch.func.vmap`, `jvp` and `grad`.
    """
    if x.layout is not torch.strided or x.is_nested:
        return None
    try:
        return x.untyped_storage()._cdata
    except RuntimeError:
        return None


def hold(x: Tensor) -> Held:
    """Keeps the number of a tensor that has one, not the memory."""
    return StorageWeakRef(x.untyped_storage())
