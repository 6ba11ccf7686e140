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
from torch.nn.utils import parametrize
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from isofire.quantization.operations import (
    CASTS,
    LEAVES,
    MOVES,
    PICKS,
    PRODUCTS,
    REREADS,
    holds,
    only_shapes,
    place_of_bias,
)
from isofire.running import OfOnePass, by_parts, tensors_in


@dataclass
class Seen:
    """What became of one layer's weights in a forward pass.

    Parameters
    ----------
    used
        Whether they met something that depends on the input, as they are.
    changed
        The operation that changed them before they were multiplied.
    read, multiplied
        Whether they were asked for, and met a product as they are, be it with a state at rest.
    replaced
        Whether as many numbers of unknown origin were multiplied with what depends on the input.
    """

    used: bool = False
    changed: str | None = None
    read: bool = False
    multiplied: bool = False
    replaced: bool = False


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
    reduced
        Whether several weights went into one number, as into a mean or norm.
    own
        Whether it is what a layer holds, not a copy.
    """

    alive: StorageWeakRef
    driven: bool = False
    stored: bool = False
    layers: frozenset[str] = frozenset()
    size: int = 0
    changed: str | None = None
    reduced: bool = False
    own: bool = False


class Operands(OfOnePass, TorchDispatchMode):
    """Follows the weights of layers while it is entered.

    Parameters
    ----------
    sources
        Layer -> the module that makes its weights, or its weights themselves.
    stored
        The network's other parameters and buffers.
    neurons
        Modules whose outputs depend on the input, whatever kernels they run on.
    fixed
        Name -> numbers that are no layer's, of which `met` tells whether they, or what is made of such alone, are
        multiplied like weights; those in the memory of a parameter that no source holds are not told.
    """

    def __init__(
        self,
        sources: Mapping[str, nn.Module | Tensor],
        stored: Iterable[Tensor] = (),
        neurons: Iterable[nn.Module] = (),
        fixed: Mapping[str, Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.met: set[str] = set()
        self.seen = {name: Seen() for name in sources}
        self._sources, self._neurons = sources, tuple(neurons)
        self._stored = tuple(stored)
        parameters = {_place(x) for x in self._stored if isinstance(x, nn.Parameter) and x.layout is torch.strided}
        made = (getattr(source, "original", source) for source in sources.values())
        # what a layer multiplies with is on levels, and its weights by a second name are not
        parameters -= {_place(x) for x in made if isinstance(x, Tensor) and x.layout is torch.strided}
        self._at_first = {
            _place(x): (StorageWeakRef(x.untyped_storage()), frozenset((name,)))
            for name, x in (fixed or {}).items()
            if x.layout is torch.strided and _place(x) not in parameters
        }
        self._fixed = dict(self._at_first)
        self._held: dict[int, _Held] = {}
        self._sizes: dict[str, int] = {}
        self._making = 0
        self._originals: dict[nn.Module, int] = {}
        self._autocast: torch.dtype | None = None

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
        # what was made of weights may be used in a later pass only
        kept = {place: item for place, item in self._held.items() if item.layers and not item.alive.expired()}
        self._held, self._making, self._fixed = {}, 0, dict(self._at_first)
        for tensor in self._stored:
            self._hold(tensor, stored=True)
        self._held.update(kept)
        for name, source in self._sources.items():
            if isinstance(source, Tensor):
                self._begin(frozenset((name,)), source)
        self._drive(inputs)
        self._originals = {
            source: _place(source.original) for source in layers if isinstance(source, parametrize.ParametrizationList)
        }
        with ExitStack() as stack:
            for source, names in layers.items():
                stack.callback(source.register_forward_pre_hook(self._make).remove)
                stack.callback(source.register_forward_hook(partial(self._made, frozenset(names))).remove)
            for neuron in self._neurons:
                stack.callback(neuron.register_forward_hook(lambda _m, _i, output: self._drive(output)).remove)
            stack.enter_context(_Calls(self))
            stack.enter_context(self)
            yield self

    def _make(self, _module: nn.Module, _inputs: Any) -> None:
        self._making += 1

    def _made(self, names: frozenset[str], module: nn.Module, _inputs: Any, output: Tensor) -> None:
        self._making -= 1
        self._begin(names, output)
        if module in self._originals and _place(module.original) != self._originals[module]:  # type: ignore[arg-type]
            # levels chosen for others' numbers, which conversion would write in place of these
            self._tell(names, "other numbers in its place for a call, as by torch.func.functional_call")

    def _begin(self, names: frozenset[str], weight: Tensor) -> None:
        known = self._held.get(_place(weight))
        for name in names:
            self.seen[name].read, self._sizes[name] = True, weight.numel()
        self._hold(
            weight, layers=names | (known.layers if known else names), size=weight.numel(), stored=True, own=True
        )

    def _hold(self, x: Tensor, **what: Any) -> None:
        if x.layout is torch.strided:
            self._held[_place(x)] = _Held(StorageWeakRef(x.untyped_storage()), **what)

    def _drive(self, values: Any) -> None:
        for x in tensors_in(values):
            self._hold(x, driven=True)

    def change(self, x: Tensor, how: str) -> None:
        """A layer's weights are written over."""
        known = self._known(x)
        if known is not None and known.own and known.changed is None:
            self._tell(known.layers, how)

    def leave(self, x: Tensor, how: str) -> None:
        """Numbers go where nothing is seen of what is done to them."""
        known = self._known(x)
        if known is not None and not known.reduced and not self._making:
            self._tell(known.layers, known.changed or how)

    def _known(self, x: Tensor) -> _Held | None:
        return self._held.get(_place(x)) if x.layout is torch.strided else None

    def _tell(self, layers: Iterable[str], how: str) -> None:
        for layer in layers:
            self.seen[layer].changed = self.seen[layer].changed or how

    @contextmanager
    def calling(self, autocast: torch.dtype | None) -> Iterator[None]:
        """Inside, casts to this type are those of autocast, which rounds the operands of all products alike."""
        former, self._autocast = self._autocast, autocast
        try:
            yield
        finally:
            self._autocast = former

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        options = kwargs or {}
        if self._making:
            return func(*args, **options)
        parts = by_parts(self, func, args, options)
        if parts is not NotImplemented:
            return parts
        name, writes = func._schema.name.split("::")[-1], func._schema.is_mutable
        written = [x for x in (*args[:1], options.get("out")) if writes and isinstance(x, Tensor)]
        for x in written:
            self.change(x, name)
        output = func(*args, **options)
        if name.endswith("_") and writes:
            name = "zero" if name == "fill_" and _is_zero(args[1]) else name[:-1]
        given = tensors_in(args, options)
        if written and name in ("zero", "fill", "copy") and _is_whole(written[0]):
            # nothing is left of what was there
            given = given[1:]
        self._follow(name, given, output, written)
        return output

    def _follow(self, name: str, given: list[Tensor], output: Any, written: list[Tensor]) -> None:
        tensors = [x for x in given if x.layout is torch.strided]
        held = [self._known(x) for x in tensors]
        weights = [(x, item) for x, item in zip(tensors, held, strict=True) if item is not None and item.layers]
        driven = any(item is not None and item.driven for item in held)
        if weights:
            self._met(name, weights, driven, driven or None in held)
        if driven and name in PRODUCTS:
            self._strangers(tensors, held)
            added = place_of_bias(name, len(tensors))
            still = [item is None or not item.driven for item in held]
            self.met |= self._names(x for place, x in enumerate(tensors) if still[place] and place != added)
        outputs = [x for x in (*tensors_in(output), *written) if x.layout is torch.strided]
        names = frozenset[str]() if driven or only_shapes(name) else self._names(tensors)
        if names and all(self._names((x,)) or x.numel() == 1 for x in tensors):
            # made of nothing but such numbers
            self._fixed.update({_place(x): (StorageWeakRef(x.untyped_storage()), names) for x in outputs})
        for x in outputs:
            known = self._known(x)
            if driven:
                if known is None or not known.driven:
                    self._hold(x, driven=True)
            elif known is None or (written and not known.own and (weights or known.layers)):
                self._hold(x, **self._made_of(name, x, held, weights))
            elif weights and (name in REREADS or (name == "view" and x.dtype != weights[0][0].dtype)):
                self._tell(known.layers, "a view as other numbers")

    def _names(self, tensors: Iterable[Tensor]) -> frozenset[str]:
        """Of which fixed numbers tensors are, or were made alone."""
        found = [self._fixed.get(_place(x)) for x in tensors]
        return frozenset[str]().union(*(names for alive, names in filter(None, found) if not alive.expired()))

    def _met(self, name: str, weights: list[tuple[Tensor, _Held]], driven: bool, foreign: bool) -> None:
        """Weights in an operation, perhaps with what depends on the input, or comes from nobody knows where."""
        for x, item in weights:
            if name == "_local_scalar_dense":
                self.leave(x, "item()")
            for layer in item.layers:
                seen = self.seen[layer]
                if item.changed is None:
                    seen.used = seen.used or driven
                    seen.multiplied = seen.multiplied or driven or name in PRODUCTS
                elif (foreign and name in PRODUCTS) or (driven and name in PICKS and not item.reduced):
                    # a mean or norm of the weights that scales what was multiplied is no change of them
                    seen.changed = seen.changed or item.changed

    def _strangers(self, tensors: list[Tensor], held: list[_Held | None]) -> None:
        """Numbers of unknown origin in a product: a layer's, if as many, and its own are in none."""
        for x, item in zip(tensors, held, strict=True):
            if item is None or not (item.layers or item.driven or item.stored):
                for layer in (name for name, size in self._sizes.items() if size == x.numel() > 1):
                    self.seen[layer].replaced = True

    def _made_of(
        self, name: str, x: Tensor, held: list[_Held | None], weights: list[tuple[Tensor, _Held]]
    ) -> dict[str, Any]:
        """What the result of an operation without driven tensors holds."""
        stored = any(item is not None and item.stored for item in held)
        others = [item for item in _multiplied(name, held) if item is not None and not item.layers]
        at_rest = name in PRODUCTS and len(weights) == 1 and not any(item.stored for item in others)
        if not weights or at_rest or only_shapes(name):
            return {"stored": stored and not at_rest}
        how = None if name in MOVES else name
        types = [weight.dtype for weight, _ in weights]
        if how is None and x.dtype != self._autocast and not all(holds(x.dtype, kind) for kind in types):
            how = f"a cast to {str(x.dtype).removeprefix('torch.')}"
        return {
            "stored": True,
            "layers": frozenset[str]().union(*(item.layers for _, item in weights)),
            "size": max(item.size for _, item in weights),
            "changed": next((item.changed for _, item in weights if item.changed), how),
            "reduced": all(item.reduced or (name not in MOVES and x.numel() < w.numel()) for w, item in weights),
        }


class _Calls(TorchFunctionMode):
    """Sees what comes down to no operation, as `tensor.data = other` and `tensor.numpy()` do, and autocast."""

    def __init__(self, operands: Operands) -> None:
        super().__init__()
        self._operands = operands

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        autocast = None
        if args and isinstance(args[0], Tensor):
            if name == "__set__":
                self._operands.change(args[0], "an assignment to its data")
            elif name in LEAVES:
                self._operands.leave(args[0], f"{name}()")
            if name not in CASTS and torch.is_autocast_enabled(args[0].device.type):
                autocast = torch.get_autocast_dtype(args[0].device.type)
        with self._operands.calling(autocast):
            return func(*args, **(kwargs or {}))


def _multiplied(name: str, held: list[_Held | None]) -> list[_Held | None]:
    """What a product multiplies: a bias that it adds, if that is no layer's weight, left out."""
    place = place_of_bias(name, len(held))
    bias = None if place is None else held[place]
    return held if place is None or bias is None or bias.layers else held[:place] + held[place + 1 :]


def _is_zero(value: Any) -> bool:
    return bool(value == 0)


def _is_whole(x: Tensor) -> bool:
    """Whether it is all of its memory."""
    return x.numel() * x.element_size() == x.untyped_storage().nbytes()


def _place(x: Tensor) -> int:
    return x.untyped_storage()._cdata
