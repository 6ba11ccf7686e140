"""Weights that inputs are subtracted from or added to, each input from several, before that is summed or a maximum.

Adder layers, distances to prototypes (radial basis functions), tropical layers: work with every weight, but no product.
A learnt offset, a position or a token is added too; what is made of it is not summed over all that it differs along.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from isofire.firing.cost.events.axes import Digits, axes_of, digits_of
from isofire.firing.cost.events.call import Call
from isofire.firing.cost.events.events import Source, storage_of
from isofire.firing.cost.events.operations import MEANS, SUMS
from isofire.firing.cost.following.uses import summed_axes
from isofire.running import tensors_in

_SHIFTS = frozenset(("add", "sub", "rsub"))
_BY_SIZE = frozenset(("amax", "amin", "max", "min", "logsumexp", "linalg_vector_norm", "norm"))
_LINEAR = _SHIFTS | {"neg", "clone", "contiguous", "_to_copy", "mul", "div"}


class _Shifted(NamedTuple):
    """Inputs less weights, held so that its memory is not given to others; where both differ; how it was changed."""

    tensor: Tensor
    weight: Tensor
    digits: Digits
    linear: bool = True


class Distances:
    """Of one forward pass."""

    def __init__(self) -> None:
        self._shifted: dict[int, _Shifted] = {}

    def clear(self) -> None:
        """A new forward pass."""
        self._shifted.clear()

    def worked(self, call: Call, is_part: Callable[[Tensor], bool]) -> Tensor | None:
        """The weights whose work the operation completes; `is_part` tells rows of a parameter from all of it."""
        tensors = [x for x in call.tensors() if x.layout is torch.strided]
        given = [x for x in tensors if call.depends(x)]
        if not given or not isinstance(call.output, Tensor | tuple):
            return None
        held = self._shifted.get(storage_of(given[0])._cdata)
        if held is None or any(storage_of(x)._cdata != storage_of(given[0])._cdata for x in given):
            if call.name in _SHIFTS and len(tensors) == 2 and len(given) == 1 and isinstance(call.output, Tensor):
                self._shift(call, given[0], next(x for x in tensors if x is not given[0]), is_part)
            return None
        if call.name in SUMS or call.name in MEANS or call.name in _BY_SIZE:
            return held.weight if self._completes(call, held) else None
        for output in tensors_in(call.output):
            if output.shape == given[0].shape:
                digits = digits_of(output, axes_of(given[0], held.digits))
                linear = held.linear and call.name in _LINEAR and len(given) == 1
                self._shifted[storage_of(output)._cdata] = _Shifted(output, held.weight, digits, linear)
        return None

    def _shift(self, call: Call, x: Tensor, weight: Tensor, is_part: Callable[[Tensor], bool]) -> None:
        if call.source(weight) != Source.WEIGHTS:
            return
        spread, laid = weight.expand(call.output.shape), x.expand(call.output.shape)
        own = {axis for axis in range(-spread.ndim, 0) if spread.shape[axis] > 1 and spread.stride(axis)}
        both = frozenset(axis for axis in own if laid.stride(axis))
        if both and (own - both or is_part(weight)):
            self._shifted[storage_of(call.output)._cdata] = _Shifted(call.output, weight, digits_of(call.output, both))

    @staticmethod
    def _completes(call: Call, held: _Shifted) -> bool:
        x = call.args[0]
        if held.linear and call.name not in _BY_SIZE:
            return False
        # a norm is told its order first
        args = (x, *call.args[2:]) if call.name in ("linalg_vector_norm", "norm") else call.args
        along = {axis % x.ndim - x.ndim for axis in summed_axes(args)}
        axes = axes_of(x, held.digits)
        return bool(axes) and axes <= along
