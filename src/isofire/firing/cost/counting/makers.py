"""Of what a memory's numbers were made."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, Generic, TypeVar

from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

from isofire.firing.cost.events.call import is_new, name_of
from isofire.firing.cost.events.events import storage_of
from isofire.running import OfOnePass, tensors_in

Maker = TypeVar("Maker", bound=Hashable)


class Makers(OfOnePass, TorchDispatchMode, Generic[Maker]):
    """Follows what tensors are made of through the operations that are done inside."""

    def __init__(self) -> None:
        super().__init__()
        # a memory to which a weak reference is held lends its address to no other
        self._made_by: dict[int, tuple[StorageWeakRef, frozenset[Maker]]] = {}

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # as of `Trace`
        return False

    def of(self, x: Tensor) -> frozenset[Maker]:
        """All that it was made of."""
        found = self._made_by.get(storage_of(x)._cdata)
        return frozenset() if found is None else found[1]

    def write(self, x: Tensor, makers: frozenset[Maker]) -> None:
        """It was made of these alone."""
        storage = storage_of(x)
        if makers or storage._cdata in self._made_by:
            self._made_by[storage._cdata] = StorageWeakRef(storage), makers

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        operands = () if is_new(name_of(func)) else tensors_in(args, kwargs)
        makers = frozenset[Maker]().union(*map(self.of, operands))
        output = func(*args, **(kwargs or {}))
        written = tensors_in(args[:1]) if func._schema.is_mutable else []
        for x in (*tensors_in(output), *written):
            self.write(x, makers)
        return output
