"""What a convolution with `padding="same"` adds on one side before it runs: zeros of the border, which are no inputs.

With an even kernel torch pads in an operation of its own and convolves what that gives.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from isofire.firing.cost.following.contacts import Arrival

_CONVOLUTIONS = frozenset(("conv1d", "conv2d", "conv3d"))


class SamePadding(TorchFunctionMode):
    """While it is entered, `within` knows what such convolutions padded."""

    def __init__(self) -> None:
        super().__init__()
        self._depth = 0
        self._padded: list[tuple[Tensor, Tensor, list[int]]] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        options = kwargs or {}
        given = (*args[3:], *options.values())
        if func.__name__ not in _CONVOLUTIONS or not any(isinstance(x, str) and x == "same" for x in given):
            return func(*args, **options)
        self._depth += 1
        try:
            return func(*args, **options)
        finally:
            self._depth -= 1
            self._padded.clear()

    def see(self, name: str, args: Any, output: Any) -> None:
        """An operation and what it gave."""
        if self._depth and name == "constant_pad_nd":
            self._padded.append((output, args[0], list(args[1])))

    def within(self, arrival: Arrival) -> Arrival:
        """The same arrival, of what the convolution was given before it padded."""
        for padded, inputs, pads in self._padded:
            if arrival.x is padded and arrival.fan is not None:
                fan, cut = arrival.fan, [-pad for pad in pads]
                return replace(arrival, x=inputs, fan=_cut(fan, cut), options=f"{arrival.options} {cut}")
        return arrival


def _cut(fan: Callable[[Tensor], Tensor], cut: list[int]) -> Callable[[Tensor], Tensor]:
    return lambda ones: torch.nn.functional.pad(fan(ones), cut)
