"""Which layer of a network runs: modules tell by hooks, weights that no such module holds by the operations on them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_LAYERS = frozenset((
    "linear", "mm", "addmm", "bmm", "baddbmm", "addbmm", "mv", "addmv", "dot", "matmul", "embedding", "convolution",
    "_convolution", "mkldnn_convolution", "cudnn_convolution", "convolution_overrideable", "bilinear", "_trilinear",
    "_scaled_mm", "_addmm_activation", "_native_multi_head_attention", "_transformer_encoder_layer_fwd",
))  # fmt: skip


@contextmanager
def telling(model: nn.Module, besides: Collection[nn.Module], ran: Callable[[int, bool], None]) -> Iterator[None]:
    """Calls `ran` for each layer that runs inside with a number, and whether it has weights, be it a module, a part of
    a script, or written out with a parameter; not for some modules."""
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


def _hook(ran: Callable[[int, bool], None], layer: nn.Module, _: Any) -> None:
    ran(id(layer), any(weight is not None for weight in layer._parameters.values()))


class _Operations(TorchDispatchMode):
    """Sees products with some weights; a factor of single numbers, or an offset, is no layer."""

    def __init__(self, weights: Collection[int], ran: Callable[[int, bool], None]) -> None:
        super().__init__()
        self._weights, self._ran = weights, ran

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # torch would import its compiler, seconds of it, to keep it away from here
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if _is_layer(func):
            for x in tree_leaves(args):
                if isinstance(x, Tensor) and x.layout is torch.strided and (key := _storage(x)._cdata) in self._weights:
                    self._ran(key, True)
        return func(*args, **(kwargs or {}))


@cache
def _is_layer(func: Any) -> bool:
    return func._schema.name.split("::")[-1] in _LAYERS


def _takes_hooks(part: nn.Module) -> bool:
    """Whether it is called as a module: not a part of a script, nor a list of parameters."""
    return not isinstance(part, torch.jit.ScriptModule | nn.ParameterList | nn.ParameterDict)


def _weights(part: nn.Module) -> Iterator[Tensor]:
    for x in (*part.parameters(recurse=False), *part.buffers(recurse=False)):
        if x.layout is torch.strided and not isinstance(x, nn.UninitializedParameter | nn.UninitializedBuffer):
            yield x


def _storage(x: Tensor) -> torch.UntypedStorage:
    return x.untyped_storage()
