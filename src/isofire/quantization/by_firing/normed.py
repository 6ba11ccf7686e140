"""Layers whose outputs a norm takes alone: measured anew, it takes back each output's scale and offset."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.instancenorm import _InstanceNorm
from torch.utils._python_dispatch import TorchDispatchMode

from isofire.adapters import from_rest
from isofire.running import OfOnePass, by_parts, by_place, evaluating, forward, hooked, tensors_in


def normed_layers(model: nn.Module, batches: Iterable[Tensor], layers: Sequence[str]) -> frozenset[str]:
    """Those of the layers whose every output is read once, by a batch or instance norm that is given nothing else.

    A sum, an activation in between, a second reader (the shortcut of a residual block), a norm that several layers
    share or one whose channels are not the layer's outputs (of tokens, of maps that a linear layer makes) make the
    scale of an output matter: such layers are not among them.

    Parameters
    ----------
    batches
        Inputs to run the network on; each may reach other layers.
    layers
        Names of convolution and linear layers.
    """
    normed: set[str] = set()
    otherwise: set[str] = set()
    for inputs in batches:
        readers = _Readers()
        found = readers.found(_result(model, inputs, layers, readers))
        normed |= found
        otherwise |= readers.all - found
    return frozenset(normed - otherwise)


def _result(model: nn.Module, inputs: Tensor, layers: Sequence[str], readers: _Readers) -> Any:
    """What the network returns, read along."""
    watched = {name: model.get_submodule(name) for name in layers}
    norms = {name: module for name, module in model.named_modules() if isinstance(module, _NormBase)}
    handles = chain(
        (module.register_forward_hook(readers.made(name)) for name, module in watched.items()),
        (module.register_forward_pre_hook(readers.entered(name), with_kwargs=True) for name, module in norms.items()),
        (module.register_forward_hook(readers.left, always_call=True) for module in norms.values()),
    )
    with hooked(handles), torch.no_grad(), evaluating(model), from_rest(model), readers:
        return forward(model, inputs)


class _Readers(OfOnePass, TorchDispatchMode):
    """Who reads what the watched layers make."""

    def __init__(self) -> None:
        super().__init__()
        # storage -> the layer that made it; `_kept` keeps memory from being given to another tensor
        self._maker: dict[int, str] = {}
        self._kept: list[Tensor] = []
        # storage -> where each of its outputs begins: how many, how far apart, the first
        self._outputs: dict[int, tuple[int, int, int]] = {}
        self._by_instance: set[int] = set()
        self._unread: set[int] = set()
        self._elsewhere: set[str] = set()
        self._given: dict[str, set[str | None]] = {}
        self._inside: list[str] = []

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # torch would import its compiler, seconds of it, to keep it away from here
        return False

    def made(self, layer: str) -> Any:
        """The hook that takes down an output of this layer."""

        def note(module: nn.Module, _args: Any, output: Any) -> None:
            if not isinstance(output, Tensor):
                self._elsewhere.add(layer)
                return
            place = _place(output)
            if place in self._maker:
                # it gives on what another made
                self._elsewhere |= {layer, self._maker[place]}
            self._maker[place] = layer
            self._outputs[place] = _along(output, -1 - len(getattr(module, "kernel_size", ())))
            self._unread.add(place)
            self._kept.append(output)

        return note

    def entered(self, norm: str) -> Any:
        """The hook that takes down what this norm is given."""

        def note(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            args, _ = by_place(module, args, kwargs)
            given = args[0] if args and isinstance(args[0], Tensor) else None
            self._given.setdefault(norm, set()).add(None if given is None else self._maker.get(_place(given)))
            if isinstance(module, _InstanceNorm) and given is not None and self._fits(given):
                # it works on [1, N * C, ...]
                self._by_instance.add(_place(given))
            self._inside.append(norm)

        return note

    def left(self, _module: nn.Module, _args: Any, _output: Any) -> None:
        self._inside.pop()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if (parts := by_parts(self, func, args, kwargs or {})) is not NotImplemented:
            return parts
        if not func.is_view:
            # a view is the same memory; what reads it is still to come
            for value in tensors_in(args, kwargs):
                if (place := _place(value)) in self._maker:
                    self._read(place, value)
        return func(*args, **(kwargs or {}))

    @property
    def all(self) -> set[str]:
        """The watched layers that were called."""
        return {*self._maker.values(), *self._elsewhere}

    def _read(self, place: int, value: Tensor) -> None:
        taken_back = bool(self._inside) and (place in self._by_instance or self._fits(value))
        if not taken_back or place not in self._unread:
            self._elsewhere.add(self._maker[place])
        self._unread.discard(place)

    def _fits(self, value: Tensor) -> bool:
        """Whether the outputs of the layer that made it lie on axis 1, where torch's operations have channels."""
        return value.ndim > 1 and _along(value, 1) == self._outputs.get(_place(value))

    def found(self, result: Any) -> frozenset[str]:
        """The layers that norms alone read, given what the network returned."""
        returned = {self._maker.get(_place(value)) for value in tensors_in(result)}
        shared = {layer for makers in self._given.values() if len(makers) > 1 for layer in makers}
        unread = {self._maker[place] for place in self._unread}
        alone = {layer for makers in self._given.values() for layer in makers}
        return frozenset(layer for layer in alone - shared - returned - unread - self._elsewhere if layer is not None)


def _along(tensor: Tensor, axis: int) -> tuple[int, int, int]:
    return tensor.shape[axis], tensor.stride(axis), int(tensor.storage_offset())


def _place(tensor: Tensor) -> int:
    # sparse tensors and those of other libraries have no storage
    return tensor.untyped_storage()._cdata if tensor.layout == torch.strided else -1
