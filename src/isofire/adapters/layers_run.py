"""Which layer of a network runs: modules tell by hooks, weights that no such module holds by the operations on them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from enum import Enum
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode


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
    hidden = {
        storage._cdata: storage for part in others if part not in layers for storage in map(_storage, _weights(part))
    }
    with ExitStack() as stack:
        for layer in layers:
            stack.callback(layer.register_forward_pre_hook(partial(_hook, ran)).remove)
        if hidden:
            stack.enter_context(_Operations(hidden, ran))
        yield


def _hook(ran: Callable[[int, Kind], None], layer: nn.Module, _: Any) -> None:
    weighted = any(weight is not None for weight in layer._parameters.values())
    ran(id(layer), Kind.WEIGHTED if weighted else Kind.BARE)


class _Operations(TorchDispatchMode):
    """Sees what is done with some weights; a vector is a factor, or an offset."""

    def __init__(self, weights: Collection[int], ran: Callable[[int, Kind], None]) -> None:
        super().__init__()
        self._weights, self._ran = weights, ran

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # torch would import its compiler, seconds of it, to keep it away from here
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for x in args:
            for item in x if isinstance(x, list | tuple) else (x,):
                if isinstance(item, Tensor) and item.ndim > 1 and item.layout is torch.strided:
                    key = _storage(item)._cdata
                    if key in self._weights:
                        self._ran(key, Kind.WRITTEN_OUT)
        return func(*args, **(kwargs or {}))


def _takes_hooks(part: nn.Module) -> bool:
    """Whether it is called as a module: not a part of a script, nor a list of parameters."""
    return not isinstance(part, torch.jit.ScriptModule | nn.ParameterList | nn.ParameterDict)


def _weights(part: nn.Module) -> Iterator[Tensor]:
    for x in (*part.parameters(recurse=False), *part.buffers(recurse=False)):
        if x.layout is torch.strided and not isinstance(x, nn.UninitializedParameter | nn.UninitializedBuffer):
            yield x


def _storage(x: Tensor) -> torch.UntypedStorage:
    return x.untyped_storage()
