"""Tensors that lie in the same memory: views, slices and transposes of each other."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy


def same_storage(model: nn.Module) -> list[list[tuple[str, Tensor]]]:
    """The model's parameters and buffers, with their names, of each storage that holds several of them."""
    held: dict[int, list[tuple[str, Tensor]]] = {}
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if not is_lazy(tensor) and tensor.layout == torch.strided:
            held.setdefault(tensor.untyped_storage()._cdata, []).append((name, tensor))
    return [group for group in held.values() if len(group) > 1]


def in_common(part: Tensor, whole: Tensor) -> int:
    """How many of the numbers of `part` lie where numbers of `whole` do.

    Parameters of one flat vector have a storage in common, and no number.

    Examples
    --------
    >>> weight = torch.rand(3, 4)
    >>> in_common(weight.T, weight), in_common(weight[:, 2:], weight[:2, :3]), in_common(weight[0], weight[1])
    (12, 2, 0)
    """
    storage = part.untyped_storage()
    if storage._cdata != whole.untyped_storage()._cdata or not part.numel() or not whole.numel():
        return 0
    (first, last), (low, high) = map(_span, (part, whole))
    if last < low or high < first:
        return 0
    marked = torch.zeros(storage.nbytes(), dtype=torch.bool)
    _bytes(whole, marked).fill_(True)
    return int(_bytes(part, marked).select(-1, 0).sum())


def _span(tensor: Tensor) -> tuple[int, int]:
    """The first and the last byte."""
    begin = tensor.storage_offset()
    end = begin + sum((n - 1) * stride for n, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return int(begin) * tensor.element_size(), (int(end) + 1) * tensor.element_size() - 1


def _bytes(tensor: Tensor, marked: Tensor) -> Tensor:
    """The marks of a tensor's bytes, `[..., bytes]`; numbers that are repeated by a stride of 0 once."""
    size = tensor.element_size()
    shape = [1 if stride == 0 else n for n, stride in zip(tensor.shape, tensor.stride(), strict=True)]
    strides = [stride * size for stride in tensor.stride()]
    return marked.as_strided((*shape, size), (*strides, 1), tensor.storage_offset() * size)
