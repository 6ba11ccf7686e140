"""Which layer of a network runs: modules tell by hooks, weights that no such module holds by the operations on them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from isofire.adapters.weights_used import Kind, Ran, WeightsUsed
from isofire.running import tensors_in


@contextmanager
def telling(
    model: nn.Module, besides: Collection[nn.Module], ran: Ran, made: Callable[[list[Tensor]], None]
) -> Iterator[None]:
    """Calls `ran` for each layer that runs inside, and `made` with what the last of them gave if that is a module; not
    for some modules, nor for what is done in them."""
    others = [part for part in model.modules() if part not in besides]
    layers = [part for part in others if not part._modules and _takes_hooks(part)]
    hooked = set(map(id, layers))
    held = [(x, id(part) in hooked) for part in others for x in _held(part)]
    with ExitStack() as stack:
        for layer in layers:
            stack.callback(layer.register_forward_pre_hook(partial(_hook, ran), with_kwargs=True).remove)
            stack.callback(layer.register_forward_hook(partial(_made, made)).remove)
        if any(x.numel() > 1 and not told for x, told in held):
            used = WeightsUsed(held, ran)
            stack.callback(used.close)
            for part in filter(_takes_hooks, besides):
                stack.callback(part.register_forward_pre_hook(used.pause).remove)
                stack.callback(part.register_forward_hook(used.resume, always_call=True).remove)
            # inside the forward alone: whoever else follows operations does more of them, which are no network's
            stack.callback(model.register_forward_pre_hook(used.begin).remove)
            stack.callback(model.register_forward_hook(used.end, always_call=True).remove)
        yield


def _hook(ran: Ran, layer: nn.Module, inputs: Any, named: Any) -> None:
    weighted = any(weight is not None for weight in layer._parameters.values())
    ran(id(layer), Kind.WEIGHTED if weighted else Kind.BARE, next(iter(tensors_in(inputs, named)), None))


def _made(made: Callable[[list[Tensor]], None], _layer: nn.Module, _inputs: Any, output: Any) -> None:
    made(tensors_in(output))


def _takes_hooks(part: nn.Module) -> bool:
    """Whether it is called as a module: not a part of a script, nor a list of parameters."""
    return not isinstance(part, torch.jit.ScriptModule | nn.ParameterList | nn.ParameterDict)


def _held(part: nn.Module) -> Iterator[Tensor]:
    for x in (*part.parameters(recurse=False), *part.buffers(recurse=False)):
        if x.layout is torch.strided and not isinstance(x, nn.UninitializedParameter | nn.UninitializedBuffer):
            yield x
