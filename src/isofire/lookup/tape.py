"""A forward written down: the calls of the look-ups and torch's operations around them, to be run again without Python.

Only what follows from the input by what is written down can be run again. So whatever is read must be the input, or
made of it by a step on the tape, or not depend on it at all; where Python looks at a value, as for a branch, or changes
what outlives the forward, there is no tape.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from isofire.lookup.native import Reads, Tape
from isofire.lookup.tensors import Lazy
from isofire.running import tensors_in

MOST_OPERATIONS = 64
"""Operations of torch on a tape: who has more of them does not wait for what the tape saves."""

_aten = torch.ops.aten
_BLANK = (_aten.empty.memory_format, _aten.empty_strided.default, _aten.new_empty.default, _aten.empty_like.default)
"""Memory without values: what these give depends on shapes alone."""

Values = list[Any]
"""The input, and what each operation of torch has given."""


class Unrepeatable(Exception):
    """Why a forward cannot be run again from a tape, or not for this input."""


class _Place(NamedTuple):
    """Where one of the values is."""

    at: int


class _Operation(NamedTuple):
    run: Callable[..., Tensor]
    args: list[Any]
    options: dict[str, Any]

    def __call__(self, values: Values) -> None:
        options = {name: _filled(given, values) for name, given in self.options.items()}
        values.append(self.run(*[_filled(given, values) for given in self.args], **options))


class _Call(NamedTuple):
    """Of the look-ups; `moving` fields point to one of the values, all others to memory that is `kept`."""

    run: Callable[[Any], None]
    problem: Any
    moving: list[tuple[str, int | None, int]]
    kept: list[Tensor]

    def __call__(self, values: Values) -> None:
        for field, place, at in self.moving:
            if place is None:
                setattr(self.problem, field, values[at].data_ptr())
            else:
                getattr(self.problem, field)[place] = values[at].data_ptr()
        self.run(ctypes.byref(self.problem))


class _Finite(NamedTuple):
    at: int

    def __call__(self, values: Values) -> None:
        # with a value that is not finite the sum is not either
        if not math.isfinite(values[self.at].sum().item()):
            raise Unrepeatable("inputs are not finite")


class Recorder(Tape):
    """Entered around a forward of `x`, it writes the forward down.

    Parameters
    ----------
    x
        The input, a plain tensor.
    constants
        The network's parameters and buffers.
    most_bytes
        Memory that a tape may take.

    Attributes
    ----------
    refused
        Why there is no tape; None as long as there is one.
    bytes
        Memory of the maps between the layers, which the tape keeps, and of what torch makes in a run.
    """

    def __init__(self, x: Tensor, constants: Iterable[Tensor], most_bytes: int) -> None:
        super().__init__()
        self.refused: str | None = None
        self.bytes, self._most_bytes = 0, most_bytes
        self._steps: list[Callable[[Values], None]] = []
        self._values, self._places = 1, {_identity(x): 0}
        self._input = _storage(x)
        # memory, by what is in it: what was made of the input, by look-ups or by torch; what was not, and of that what
        # was made since the forward began, what has no values yet, and what a step reads
        self._derived, self._filled = {self._input}, set[int]()
        self._constant = {_storage(each) for each in constants}
        self._fresh, self._blank, self._read = set[int](), set[int](), set[int]()
        # nothing is freed, so that no memory is taken for another
        self._alive: list[Any] = [x]
        self._looking = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if any(issubclass(kind, Lazy) for kind in types):
            with self:
                return Lazy.__torch_dispatch__(func, types, args, kwargs)
        made = func(*args, **kwargs)
        if not self._looking:
            self._note(self._operated, func, args, kwargs, made)
        return made

    def finite(self, x: Tensor) -> bool:
        self._looking = True
        try:
            found = bool(x.isfinite().all())
        finally:
            self._looking = False
        self._note(lambda: self._steps.append(_Finite(self._place(x).at)))
        return found

    def called(
        self, run: Callable, problem: Any, reads: Reads, written: Sequence[Tensor], kept: Sequence[Tensor]
    ) -> None:
        self._note(self._called, run, problem, reads, written, kept)

    def refuse(self, reason: str) -> None:
        self.refused = self.refused or reason
        self._alive.clear()
        self._steps.clear()

    def tape(self, output: Any) -> tuple[Callable[[Tensor], Tensor] | None, Any]:
        """From another input of the same shape, strides and type to its output, None if `refused`; and this output, in
        memory of its own.

        It raises `Unrepeatable` for an input for which the forward would go another way, and is for one thread at once.
        """
        found: list[Any] = []
        self._note(lambda: found.append(self._output(output)))
        if self.refused is not None:
            return None, output
        steps, (given,) = self._steps, found
        # memory of the tape is the next run's
        shared = _storage(output) in self._filled

        def run(x: Tensor) -> Tensor:
            values: Values = [x]
            for step in steps:
                step(values)
            made = _filled(given, values)
            return made.clone() if shared else made

        return run, output.clone() if shared else output

    def _note(self, noting: Callable[..., None], *given: Any) -> None:
        if self.refused is None:
            try:
                noting(*given)
            except Unrepeatable as reason:
                self.refuse(str(reason))

    def _operated(self, func: Any, args: Any, kwargs: Any, made: Any) -> None:
        given = tensors_in(args, kwargs)
        results = tensors_in(made)
        self._alive.append((given, results))
        memory, found = {_storage(x) for x in given}, {_storage(x) for x in results}
        if func in _BLANK:
            self._blank |= found
            return
        if torch.Tag.nondeterministic_seeded in func.tags:
            raise Unrepeatable(f"{func} draws random numbers")
        changed, derived = {_storage(x) for x in _changed(func, args, kwargs)}, not memory.isdisjoint(self._derived)
        known = memory <= self._derived | self._constant | self._fresh | self._blank
        if derived and not known:
            raise Unrepeatable(f"{func} reads what is neither a parameter nor made by torch")
        if not changed <= (self._derived - {self._input} if derived else self._fresh - self._read):
            raise Unrepeatable(f"{func} changes what is not of this forward alone")
        if not memory.isdisjoint(self._blank - self._filled):
            # a view, or something filled it behind torch's back
            if found != memory or changed:
                raise Unrepeatable(f"{func} reads memory without values")
            return
        if not derived:
            self._fresh |= found - memory if known else set()
            return
        if type(made) is not Tensor:
            raise Unrepeatable(f"{func} looks at values, or gives several tensors")
        if self._values > MOST_OPERATIONS:
            raise Unrepeatable(f"there are more than {MOST_OPERATIONS} operations of torch")
        options = {name: self._given(each) for name, each in kwargs.items()}
        self._steps.append(_Operation(func, [self._given(each) for each in args], options))
        self._count(results if memory.isdisjoint(found) else [])
        self._places[_identity(made)] = self._values
        self._derived |= found
        self._values += 1

    def _called(
        self, run: Callable, problem: Any, reads: Reads, written: Sequence[Tensor], kept: Sequence[Tensor]
    ) -> None:
        inputs, outputs = ({_storage(x) for x in maps} for maps in ([x for *_, x in reads], written))
        if not inputs <= self._derived or not outputs <= self._blank - self._filled:
            raise Unrepeatable("look-ups read or fill what is not of this forward alone")
        moving = [(field, place, self._place(x).at) for field, place, x in reads if self._moves(x)]
        self._steps.append(
            _Call(run, problem, moving, [*written, *kept, *(x for *_, x in reads if not self._moves(x))])
        )
        self._alive += [reads, written, kept]
        self._read |= {_storage(x) for x in kept}
        self._count(written)
        self._filled |= outputs
        self._derived |= outputs

    def _count(self, made: Iterable[Tensor]) -> None:
        self.bytes += sum(x.untyped_storage().nbytes() for x in made)
        if self.bytes > self._most_bytes:
            raise Unrepeatable(f"its maps take more than {self._most_bytes >> 20} MiB")

    def _output(self, output: Any) -> Any:
        if type(output) is not Tensor or _storage(output) not in self._derived:
            raise Unrepeatable("the output is no tensor that was made of the input")
        return self._given(output)

    def _moves(self, x: Tensor) -> bool:
        """Whether it lies elsewhere in the next run."""
        return _storage(x) in self._derived and _storage(x) not in self._filled

    def _place(self, x: Tensor) -> _Place:
        if _identity(x) not in self._places:
            raise Unrepeatable("a tensor was made behind torch's back")
        return _Place(self._places[_identity(x)])

    def _given(self, x: Any) -> Any:
        """An argument as the steps have it."""
        if isinstance(x, (list, tuple)):
            return [self._given(each) for each in x]
        if not isinstance(x, Tensor):
            return x
        if self._moves(x) or _identity(x) in self._places:
            return self._place(x)
        self._read.add(_storage(x))
        return x


def _filled(given: Any, values: Values) -> Any:
    if type(given) is _Place:
        return values[given.at]
    return [_filled(each, values) for each in given] if type(given) is list else given


def _changed(func: Any, args: Any, kwargs: Any) -> Iterable[Tensor]:
    """The tensors that an operation changes in place."""
    for place, argument in enumerate(func._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            given = args[place] if place < len(args) else kwargs.get(argument.name)
            yield from tensors_in(given)


def _storage(x: Tensor) -> int:
    if x.layout is not torch.strided:
        raise Unrepeatable(f"a tensor is {x.layout}")
    return x.untyped_storage()._cdata


def _identity(x: Tensor) -> tuple[Any, ...]:
    """What two tensors with the same values because of the same memory have in common."""
    return _storage(x), x.storage_offset(), x.shape, x.stride(), x.dtype, x.is_neg(), x.is_conj()
