"""Of an operation of torch: whether it only looks, moves numbers or works on each by itself, or does something else."""

from __future__ import annotations

import re
from enum import Enum
from typing import Any, NamedTuple

import torch


class Sort(Enum):
    """Of an operation: one that only looks, one that works number by number or moves numbers, or any other."""

    VIEW = 0
    CARRY = 1
    OTHER = 2


class How(NamedTuple):
    """What is known of an operation."""

    sort: Sort
    mutates: bool
    composed: bool
    """Of others, which torch shows as one where no gradients are asked for."""
    indices: int | None
    """Which argument says where to look."""


_INDICES = {"index", "indices"}
_ADDS = re.compile("_add|_reduce")
_CARRIES = re.compile(
    r"::(copy|fill|_to_copy|cat|stack|constant_pad_nd|masked_\w+|\w+_scatter"
    r"|\w*(layer|group|batch|rms|instance)_norm\w*)_?$"
)
"""Operations that torch does not call pointwise: copies, parts put together, norms, whose weights are factors."""


def how(func: Any) -> How:
    """What an operation, as torch dispatches it, does."""
    schema, sort, indices = func._schema, Sort.OTHER, None
    composed = func.has_kernel_for_dispatch_key(torch._C.DispatchKey.CompositeImplicitAutograd)
    if getattr(func, "is_view", False) and not schema.is_mutable and not composed:
        sort = Sort.VIEW
    elif torch.Tag.pointwise in func.tags or _CARRIES.search(schema.name):
        sort = Sort.CARRY
    if not _ADDS.search(schema.name):
        indices = next((at for at, given in enumerate(schema.arguments) if given.name in _INDICES), None)
    return How(sort, schema.is_mutable, composed, indices)
