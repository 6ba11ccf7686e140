"""One of torch's operations in a forward pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from isofire.firing.cost.events.events import Events, Source


def name_of(func: Any) -> str:
    """Name of a torch operation, without the underscore of one that works in place."""
    name = func._schema.name.split("::")[-1]
    return name[:-1] if func._schema.is_mutable and name.endswith("_") else name


def is_new(name: str) -> bool:
    """Whether an operation takes a tensor's size alone, and none of its numbers."""
    return name.startswith("new_") or name.endswith("_like")


@dataclass(frozen=True)
class Call:
    """One operation that has been done.

    Parameters
    ----------
    name
        Of the operation, without the underscore of one that works in place.
    args, options
        As given; tensors that were written in place are as they were before.
    output
        Its first result, or list of results.
    events, source
        Of a tensor, before the operation.
    place
        Name of the module in which it is done.
    """

    name: str
    func: Any
    args: Sequence[Any]
    options: dict[str, Any]
    output: Any
    events: Callable[[Tensor], Events]
    source: Callable[[Tensor], Source]
    place: str = ""

    def tensors(self) -> Iterator[Tensor]:
        """All that are given, those in lists (`cat`) too."""
        for x in self.args:
            yield from (item for item in (x if isinstance(x, list | tuple) else (x,)) if isinstance(item, Tensor))

    def depends(self, x: Any) -> bool:
        """Whether it is a tensor that comes from the input or from spikes."""
        return isinstance(x, Tensor) and self.source(x) >= Source.INPUT
