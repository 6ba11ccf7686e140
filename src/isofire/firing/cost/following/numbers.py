"""How many numbers tensors hold, and which of them others hold too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from isofire.running import in_common, stored_values


def numbers_in(x: Tensor) -> int:
    """Real numbers; a complex one is two."""
    return x.numel() * (2 if x.is_complex() else 1)


def share_not_zero(x: Tensor) -> float:
    """Share of its real numbers that are not 0; of a sparse matrix of all that there would be in a dense one."""
    values = stored_values(x.detach().coalesce() if x.layout is torch.sparse_coo else x.detach())
    values = torch.view_as_real(values.resolve_conj()) if x.is_complex() else values
    return float((values != 0).double().sum() / numbers_in(x))


def once(x: Tensor) -> Tensor:
    """Without what is only laid out over images or places, which is stored once."""
    if x.layout is not torch.strided:
        return x
    sizes = [size if apart else 1 for size, apart in zip(x.shape, x.stride(), strict=True)]
    return x.as_strided(sizes, x.stride(), x.storage_offset())


class Numbers:
    """What parameters hold, number by number: some share a storage and no number, others are parts of one another."""

    def __init__(self) -> None:
        self._taken: dict[tuple[int, int], Tensor] = {}
        self._holders: dict[tuple[int, int], list[tuple[str, Tensor]]] = {}

    def put(self, name: str, parts: Sequence[Tensor], count: int) -> dict[str, Any]:
        """`stored_in` and `shared` of the layer's `count` weights, which these parameters are, or are made of."""
        parts = [torch.view_as_real(x.detach().resolve_conj()) if x.is_complex() else x for x in parts]
        before = [self._holder(x) for x in parts]
        new = [self._put(name, x) for x in parts]
        if parts and None not in before:
            return {"stored_in": before[0], "shared": count}
        return {"stored_in": None, "shared": count - new[0] if [x.numel() for x in parts] == [count] else 0}

    def _holder(self, x: Tensor) -> str | None:
        """The first of those before that hold all of its numbers."""
        return next(
            (
                name
                for name, whole in self._holders.get(_place(x), ())
                if x is whole or in_common(x, whole) == x.numel()
            ),
            None,
        )

    def _put(self, name: str, x: Tensor) -> int:
        """How many of its numbers nothing before held."""
        self._holders.setdefault(_place(x), []).append((name, x))
        size = x.untyped_storage().nbytes() // x.element_size()
        taken = self._taken.setdefault(_place(x), torch.zeros(size, dtype=torch.bool))
        apart = [size if stride else 1 for size, stride in zip(x.shape, x.stride(), strict=True)]
        places = taken.as_strided(apart, x.stride(), x.storage_offset())
        found = places.numel() - int(places.sum())
        places.fill_(True)
        return found


def _place(x: Tensor) -> tuple[int, int]:
    return x.untyped_storage()._cdata, x.element_size()
