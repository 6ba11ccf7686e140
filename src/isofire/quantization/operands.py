"""What a network's products are given: a layer's weights as they are, or something that the network makes of them.

A forward pass is followed operation by operation. A weight that is moved, viewed, cut or repeated stays what it is;
whatever else is done to it makes another number of it, also where at the moment it changes nothing (a gain that is
still 1, a clamp that clamps nothing). Values are not looked at, and what runs is what would run anyway.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_MOVES = frozenset((
    "cat", "stack", "clone", "contiguous", "_to_copy", "copy", "index", "index_select", "gather", "roll", "flip",
    "repeat", "tile", "constant_pad_nd", "_unsafe_view", "_reshape_copy", "_reshape_alias", "unsafe_split",
    "split_with_sizes_copy", "lift_fresh_copy", "repeat_interleave", "to_mkldnn", "_to_dense", "_to_sparse",
    "_to_sparse_csr", "slice_scatter", "select_scatter", "unfold_copy", "tril", "triu", "alias", "detach",
))  # fmt: skip
"""Operations that give numbers to other places, as they are."""
_PRODUCTS = frozenset((
    "convolution", "_convolution", "convolution_overrideable", "mkldnn_convolution", "linear", "mm", "bmm", "mv", "dot",
    "vdot", "addmm", "baddbmm", "addbmm", "addmv", "_addmm_activation", "_trilinear", "_sparse_addmm", "_sparse_mm",
))  # fmt: skip


@dataclass
class Seen:
    """What became of one layer's weights in a forward pass.

    Parameters
    ----------
    used
        Whether they met something that depends on the input, as they are.
    changed
        The operation that changed them before they were multiplied.
    """

    used: bool = False
    changed: str | None = None


@dataclass(frozen=True)
class _Held:
    """What a piece of memory holds, as far as it is known.

    Parameters
    ----------
    driven
        Whether it depends on the network's input.
    stored
        Whether it was made of parameters or buffers.
    layers, size, changed
        The layers whose weights it was made of, how many these are, and the operation that changed them, if any.
    """

    alive: StorageWeakRef
    driven: bool = False
    stored: bool = False
    layers: frozenset[str] = frozenset()
    size: int = 0
    changed: str | None = None


class Operands(TorchDispatchMode):
    """Follows the weights of layers while it is entered.

    Parameters
    ----------
    sources
        Layer -> the module that makes its weights, or its weights themselves.
    stored
        The network's other parameters and buffers.
    neurons
        Modules whose outputs depend on the input, whatever kernels they run on.
    """

    def __init__(
        self,
        sources: Mapping[str, nn.Module | Tensor],
        stored: Iterable[Tensor] = (),
        neurons: Iterable[nn.Module] = (),
    ) -> None:
        super().__init__()
        self.seen = {name: Seen() for name in sources}
        self._sources, self._neurons = sources, tuple(neurons)
        self._held: dict[int, _Held] = {}
        self._making = 0
        for tensor in stored:
            self._hold(tensor, stored=True)
        for name, source in sources.items():
            if isinstance(source, Tensor):
                self._begin(frozenset((name,)), source)

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # torch would import its compiler, seconds of it, to keep it away from here
        return False

    @contextmanager
    def following(self, inputs: Any) -> Iterator[Operands]:
        """Entered, for a forward pass of these inputs."""
        layers: dict[nn.Module, set[str]] = {}
        for name, source in self._sources.items():
            if isinstance(source, nn.Module):
                layers.setdefault(source, set()).add(name)
        self._drive(inputs)
        with ExitStack() as stack:
            for source, names in layers.items():
                stack.callback(source.register_forward_pre_hook(self._make).remove)
                stack.callback(source.register_forward_hook(partial(self._made, frozenset(names))).remove)
            for neuron in self._neurons:
                stack.callback(neuron.register_forward_hook(lambda _m, _i, output: self._drive(output)).remove)
            stack.enter_context(_Assignments(self))
            stack.enter_context(self)
            yield self

    def _make(self, _module: nn.Module, _inputs: Any) -> None:
        self._making += 1

    def _made(self, names: frozenset[str], _module: nn.Module, _inputs: Any, output: Tensor) -> None:
        self._making -= 1
        self._begin(names, output)

    def _begin(self, names: frozenset[str], weight: Tensor) -> None:
        known = self._held.get(_place(weight))
        self._hold(weight, layers=names | (known.layers if known else names), size=weight.numel(), stored=True)

    def _hold(self, x: Tensor, **what: Any) -> None:
        if x.layout is torch.strided:
            self._held[_place(x)] = _Held(StorageWeakRef(x.untyped_storage()), **what)

    def _drive(self, values: Any) -> None:
        for x in tree_leaves(values):
            if isinstance(x, Tensor):
                self._hold(x, driven=True)

    def change(self, x: Tensor, how: str) -> None:
        """Weights are written over."""
        known = self._held.get(_place(x)) if x.layout is torch.strided else None
        for name in known.layers if known is not None and known.changed is None else ():
            self.seen[name].changed = self.seen[name].changed or how

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        options = kwargs or {}
        if self._making:
            return func(*args, **options)
        if torch.is_inference_mode_enabled():
            # there composite operations come whole
            with self:
                parts = func.decompose(*args, **options)
            if parts is not NotImplemented:
                return parts
        name, writes = func._schema.name.split("::")[-1], func._schema.is_mutable
        if writes and args and isinstance(args[0], Tensor):
            self.change(args[0], name)
        output = func(*args, **options)
        self._follow(name[:-1] if writes and name.endswith("_") else name, tree_leaves((args, options)), output)
        return output

    def _follow(self, name: str, given: list[Any], output: Any) -> None:
        tensors = [x for x in given if isinstance(x, Tensor) and x.layout is torch.strided]
        held = [self._held.get(_place(x)) for x in tensors]
        weights = [item for item in held if item is not None and item.layers]
        driven = any(item is not None and item.driven for item in held)
        if weights:
            self._met(name, tensors, held, driven)
        outputs = [x for x in tree_leaves(output) if isinstance(x, Tensor) and x.layout is torch.strided]
        if driven:
            for x in outputs:
                if _place(x) not in self._held or not self._held[_place(x)].driven:
                    self._hold(x, driven=True)
            return
        for x in outputs:
            if _place(x) not in self._held:
                self._hold(x, **_made_of(name, x, held, weights))

    def _met(self, name: str, tensors: list[Tensor], held: list[_Held | None], driven: bool) -> None:
        """Weights in an operation, perhaps with what depends on the input, or comes from nobody knows where."""
        foreign = driven or any(item is None for item in held)
        for x, item in zip(tensors, held, strict=True):
            for layer in item.layers if item is not None else ():
                seen = self.seen[layer]
                assert item is not None
                if item.changed is None:
                    seen.used = seen.used or driven
                elif (foreign and name in _PRODUCTS) or (driven and name == "mul" and x.numel() >= item.size):
                    # a mean or norm of the weights that scales what was multiplied is no change of them
                    seen.changed = seen.changed or item.changed


def _made_of(name: str, x: Tensor, held: list[_Held | None], weights: list[_Held]) -> dict[str, Any]:
    """What the result of an operation without driven tensors holds."""
    stored = any(item is not None and item.stored for item in held)
    others = [item for item in held if item is not None and not item.layers]
    at_rest = name in _PRODUCTS and len(weights) == 1 and not any(item.stored for item in others)
    if not weights or at_rest or not x.is_floating_point() or name.endswith("_like") or name.startswith("new_"):
        return {"stored": stored and not at_rest}
    changed = next((item.changed for item in weights if item.changed), None if name in _MOVES else name)
    layers = frozenset[str]().union(*(item.layers for item in weights))
    return {"stored": True, "layers": layers, "size": max(item.size for item in weights), "changed": changed}


class _Assignments(TorchFunctionMode):
    """`tensor.data = other` comes down to no operation."""

    def __init__(self, operands: Operands) -> None:
        super().__init__()
        self._operands = operands

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__name__", "") == "__set__" and args and isinstance(args[0], Tensor):
            self._operands.change(args[0], "an assignment to its data")
        return func(*args, **(kwargs or {}))


def _place(x: Tensor) -> int:
    return x.untyped_storage()._cdata
