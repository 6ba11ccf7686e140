"""What is multiplied with weights that belong to no module with a hook, seen operation by operation.

Of each memory two things are known apart: the weights that it was made of, and whether it may depend on the input. What
is made of weights and of something unknown (a mask, noise, what another network says of the data) still is of these
weights. A layer is where they meet the input in a product, or where what both made number by number is summed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode, _get_current_dispatch_mode, _pop_mode

from isofire.adapters.memory import Held, hold, place
from isofire.adapters.operations import How, Sort, how
from isofire.running import OfOnePass, tensors_in

_ROOM = 1000
"""Memories that are known at most before those that are gone are forgotten."""


class Kind(Enum):
    """Of a layer: a module with weights, one without, or what is done with weights of another module or a script."""

    WEIGHTED = 0
    BARE = 1
    WRITTEN_OUT = 2
    """The weights are multiplied with the input."""
    MIXED = 3
    """They and the input met number by number before, and are summed or multiplied now: a layer, or an offset."""
    AT_REST = 4
    """They are multiplied with what does not depend on the input, as a state before the first step."""


Ran = Callable[[int, Kind, "Tensor | None"], None]
"""Is told of each layer that runs a number, its kind, and what it is given."""


class _Fact(NamedTuple):
    weights: frozenset[int]
    depends: bool


_NONE: frozenset[int] = frozenset()
_UNKNOWN = _Fact(_NONE, True)


class WeightsUsed(OfOnePass, TorchDispatchMode):
    """Tells each use of some weights, as a number, and what they meet.

    Parameters
    ----------
    held
        Parameters and buffers, each with whether its module tells of it.
    ran
        Is told of each use.
    """

    def __init__(self, held: Sequence[tuple[Tensor, bool]], ran: Ran) -> None:
        super().__init__()
        self._ran, self._forwards, self._paused, self._left = ran, 0, 0, False
        self._facts: dict[int, tuple[Held, _Fact]] = {}
        self._room = _ROOM
        self._hows: dict[Any, How] = {}
        # numpy's view of a tensor comes back as another memory at the same address
        self._addresses: dict[int, _Fact] = {}
        for x, told in held:
            if (at := place(x)) is None:
                continue
            known = self._facts.get(at)
            weights = _NONE if told or x.numel() < 2 else frozenset((at,))
            fact = _Fact(weights or (known[1].weights if known else _NONE), False)
            self._write(x, fact)
            if fact.weights and _has_address(x):
                self._addresses[x.data_ptr()] = self._of(x)

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # torch would import its compiler, seconds of it, to keep it away from here
        return False

    def begin(self, *_: Any) -> None:
        """Sees operations until `end`."""
        if self._forwards == 0:
            self.__enter__()
        self._forwards += 1

    def end(self, *_: Any) -> None:
        # a forward that another hook stopped before `begin` has nothing to end
        if self._forwards > 1:
            self._forwards -= 1
        else:
            self.close()

    def pause(self, *_: Any) -> None:
        """What is made until `resume` may depend on the input, and is of no weights."""
        # unseen operations cost nothing; below another mode they are seen
        if self._paused == 0 and self._forwards and _get_current_dispatch_mode() is self:
            self.__exit__(None, None, None)
            self._left = True
        self._paused += 1

    def resume(self, *_: Any) -> None:
        self._paused = max(0, self._paused - 1)
        if self._paused == 0 and self._left:
            self._left = False
            self.__enter__()

    def close(self) -> None:
        """Sees no more, also where a forward was interrupted: torch calls no hook then that would `end` it."""
        if self._forwards and not self._left:
            if _get_current_dispatch_mode() is self:
                self.__exit__(None, None, None)
            else:
                # one that was entered before it has ended since, and taken it off in its own place
                _pop_mode()
        self._forwards, self._paused, self._left = 0, 0, False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if (known := self._hows.get(func)) is None:
            known = self._hows[func] = how(func)
        if self._paused or known.sort is Sort.VIEW:
            return func(*args, **kwargs)
        given = tensors_in(args, kwargs)
        facts = [self._of(x) for x in given]
        weighed = any(fact.weights for fact in facts)
        if not (weighed or known.mutates) and any(fact.depends for fact in facts):
            return func(*args, **kwargs)
        if weighed and known.composed:
            with self:
                return func.decompose(*args, **kwargs)
        sort, output = known.sort, func(*args, **kwargs)
        if weighed and known.indices is not None:
            sort = _moved(given, facts, tensors_in(args[known.indices : known.indices + 1]))
        self._note(sort, given, facts, tensors_in(output), known.mutates)
        return output

    def _note(
        self, sort: Sort, given: Sequence[Tensor], facts: Sequence[_Fact], output: Sequence[Tensor], mutates: bool
    ) -> None:
        depends = any(fact.depends for fact in facts)
        pure = [(x, fact.weights) for x, fact in zip(given, facts, strict=True) if fact.weights and not fact.depends]
        mixed = _NONE.union(*(fact.weights for fact in facts if fact.depends))
        if sort is Sort.CARRY and depends and output:
            # a factor or an offset along one axis mixes nothing
            pure = [(x, weights) for x, weights in pure if _axes(x) > 1 or x.numel() == output[0].numel()]
        weights = _widest(pure)
        if sort is Sort.OTHER and (weights or mixed):
            met = next((x for x, fact in zip(given, facts, strict=True) if fact.depends), None)
            if weights and depends:
                self._ran(_number(weights), Kind.WRITTEN_OUT, met)
                weights = _NONE
            elif mixed and _sums(given, facts, output):
                self._ran(_number(mixed), Kind.MIXED, met)
                mixed = _NONE
            elif weights and len(given) > len(pure):
                self._ran(_number(weights), Kind.AT_REST, None)
        kept = set[int | None]() if mutates else set(map(place, given))
        for x in output:
            if place(x) not in kept:
                self._write(x, _Fact(weights | mixed, depends))

    def _of(self, x: Tensor) -> _Fact:
        if (at := place(x)) is None:
            return _UNKNOWN
        found = self._facts.get(at)
        if found is None:
            return self._addresses.get(x.data_ptr(), _UNKNOWN) if self._addresses and _has_address(x) else _UNKNOWN
        fact = found[1]
        if fact.weights and (offset := x.storage_offset()):
            # layers may be parts of one tensor
            return _Fact(frozenset((hash((fact.weights, offset)),)), fact.depends)
        return fact

    def _write(self, x: Tensor, fact: _Fact) -> None:
        if (at := place(x)) is None:
            return
        if fact == _UNKNOWN:
            self._facts.pop(at, None)
            return
        self._facts[at] = hold(x), fact
        if len(self._facts) > self._room:
            self._facts = {place: item for place, item in self._facts.items() if not item[0].expired()}
            self._room = max(_ROOM, 2 * len(self._facts))


def _moved(given: Sequence[Tensor], facts: Sequence[_Fact], indices: Sequence[Tensor]) -> Sort:
    """A table of weights in which the input looks something up is a layer; an order of the input's numbers is none."""
    at = set(map(id, indices))
    asked = any(fact.depends for x, fact in zip(given, facts, strict=True) if id(x) in at)
    table = any(fact.weights for x, fact in zip(given, facts, strict=True) if id(x) not in at)
    return Sort.OTHER if asked and table else Sort.CARRY


def _sums(given: Sequence[Tensor], facts: Sequence[_Fact], output: Sequence[Tensor]) -> bool:
    """Whether what is made of weights and the input is summed, or meets something else of the input."""
    if len(given) == 1:
        found = next(iter(output), None)
        if found is None or found.ndim == 0 or found.dtype is torch.bool:
            # of a whole batch, or a yes or no: the network looks
            return False
        return found.numel() < given[0].numel() and place(found) != place(given[0])
    return sum(fact.depends for fact in facts) > 1


def _widest(items: Sequence[tuple[Tensor, frozenset[int]]]) -> frozenset[int]:
    """Weights of those with most axes: beside a matrix, a vector is a factor, or an offset."""
    most = max((_axes(x) for x, _ in items), default=0)
    return _NONE.union(*(weights for x, weights in items if _axes(x) == most))


def _axes(x: Tensor) -> int:
    return sum(size > 1 for size in x.shape)


def _number(weights: frozenset[int]) -> int:
    return next(iter(weights)) if len(weights) == 1 else hash(weights)


def _has_address(x: Tensor) -> bool:
    return type(x) in {Tensor, nn.Parameter} and x.device.type == "cpu"
