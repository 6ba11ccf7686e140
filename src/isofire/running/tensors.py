"""The tensors in whatever holds them, and the numbers in a tensor."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

_WITHOUT = {int, float, bool, str, type(None), torch.dtype, torch.device, torch.layout, torch.memory_format}
"""Types of which no value holds a tensor."""
_COMPRESSED = {torch.sparse_csr, torch.sparse_csc, torch.sparse_bsr, torch.sparse_bsc, torch.jagged}


def tensors_in(*values: Any) -> list[Tensor]:
    """Those in nested tuples, lists, dictionaries and what else torch's pytrees look into, in their order.

    Much faster than `tree_leaves`, which those who follow each operation of a network would spend most time in.

    Examples
    --------
    >>> tensors_in((torch.ones(1), [2, {"x": torch.zeros(1)}]), None)
    [tensor([1.]), tensor([0.])]
    """
    found: list[Tensor] = []
    _gather(values, found)
    return found


def _gather(values: Any, found: list[Tensor]) -> None:
    for x in values:
        kind = type(x)
        if isinstance(x, Tensor):
            found.append(x)
        elif kind in _WITHOUT:
            continue
        elif kind is tuple or kind is list:
            _gather(x, found)
        elif kind is dict:
            if x:
                _gather(x.values(), found)
        else:
            found.extend(leaf for leaf in tree_leaves(x) if isinstance(leaf, Tensor))


def stored_values(x: Tensor) -> Tensor:
    """The numbers that a tensor holds; of a sparse one those that are not 0 for being left out.

    Examples
    --------
    >>> stored_values(torch.eye(2).to_sparse())
    tensor([1., 1.])
    """
    if x.layout is torch.strided:
        return x
    if x.layout is torch.sparse_coo:
        return x._values()
    return x.values() if x.layout in _COMPRESSED else x.to_dense()
