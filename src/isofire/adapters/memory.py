"""Which memory a tensor lies in, and that it is not given to another tensor while it is asked about."""

from __future__ import annotations

from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

Held = StorageWeakRef
"""While it is held, no other tensor gets the memory's number; the numbers in it are freed as ever."""


def place(x: Tensor) -> int:
    """The number of the memory that a dense tensor lies in; views have that of what they view."""
    return x.untyped_storage()._cdata


def hold(x: Tensor) -> Held:
    """Keeps the number, not the memory."""
    return StorageWeakRef(x.untyped_storage())
