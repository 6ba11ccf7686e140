"""Which layer of a network runs: modules tell by hooks, weights that no such module holds by the operations on them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from enum import Enum
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

from isofire.running import tensors_in

_ROOM = 1000
"""Memories that are known at most before those that are gone are forgotten."""


class Kind(Enum):
    """Of a layer: a module with weights, one without, or what is done with weights of another module or a script."""

    WEIGHTED = 0
    BARE = 1
    WRITTEN_OUT = 2


@contextmanager
def telling(model: nn.Module, besides: Collection[nn.Module], ran: Callable[[int, Kind], None]) -> Iterator[None]:
    """Calls `ran` for each layer that runs inside with a number and what it is; not for some modules."""
    others = [part for part in model.modules() if part not in besides]
    layers = [part for part in others if not part._modules and _takes_hooks(part)]
    hooked = set(map(id, layers))
    held = [(x, id(part) in hooked) for part in others for x in _held(part)]
    with ExitStack() as stack:
        for layer in layers:
            stack.callback(layer.register_forward_pre_hook(partial(_hook, ran)).remove)
        if any(_is_weights(x) and not told for x, told in held):
            stack.enter_context(_Operations(held, ran))
        yield


def _hook(ran: Callable[[int, Kind], None], layer: nn.Module, _: Any) -> None:
    weighted = any(weight is not None for weight in layer._parameters.values())
    ran(id(layer), Kind.WEIGHTED if weighted else Kind.BARE)


class _Operations(TorchDispatchMode):
    """Sees what is multiplied with weights that no hook tells of, or with what is made of them alone.

    What is done number by number is no layer (a mask, a factor, an offset), unless each meets several weights.
    """

    def __init__(self, held: Sequence[tuple[Tensor, bool]], ran: Callable[[int, Kind], None]) -> None:
        super().__init__()
        self._ran = ran
        # memory of what does not depend on the input -> the weights that it was made of, 0 for none
        self._made: dict[int, tuple[StorageWeakRef, int]] = {}
        self._room = _ROOM
        for x, told in held:
            weights = 0 if told or not _is_weights(x) else _place(x)
            self._write(x, weights or self._of(x) or 0)

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # torch would import its compiler, seconds of it, to keep it away from here
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = tensors_in(args, kwargs)
        made_of = list(map(self._of, given))
        output = func(*args, **(kwargs or {}))
        weights = [place for place in made_of if place]
        if None in made_of and (torch.Tag.pointwise not in func.tags or _spreads(given, output)):
            for place in weights:
                self._ran(place, Kind.WRITTEN_OUT)
        for x in tensors_in(output):
            if x.layout is torch.strided:
                if None not in made_of:
                    self._write(x, next(iter(weights), 0))
                else:
                    self._made.pop(_place(x), None)
        return output

    def _of(self, x: Tensor) -> int | None:
        """The weights that it was made of; None where it may depend on the input."""
        found = self._made.get(_place(x)) if x.layout is torch.strided else None
        return None if found is None else found[1]

    def _write(self, x: Tensor, weights: int) -> None:
        self._made[_place(x)] = StorageWeakRef(x.untyped_storage()), weights
        if len(self._made) > self._room:
            self._made = {place: item for place, item in self._made.items() if not item[0].expired()}
            self._room = max(_ROOM, 2 * len(self._made))


def _spreads(given: Sequence[Tensor], output: Any) -> bool:
    return isinstance(output, Tensor) and output.numel() > max(x.numel() for x in given)


def _takes_hooks(part: nn.Module) -> bool:
    """Whether it is called as a module: not a part of a script, nor a list of parameters."""
    return not isinstance(part, torch.jit.ScriptModule | nn.ParameterList | nn.ParameterDict)


def _held(part: nn.Module) -> Iterator[Tensor]:
    for x in (*part.parameters(recurse=False), *part.buffers(recurse=False)):
        if x.layout is torch.strided and not isinstance(x, nn.UninitializedParameter | nn.UninitializedBuffer):
            yield x


def _is_weights(x: Tensor) -> bool:
    """Whether it may mix what it is multiplied with; numbers along one axis are factors, or offsets."""
    return sum(size > 1 for size in x.shape) > 1


def _place(x: Tensor) -> int:
    return x.untyped_storage()._cdata
