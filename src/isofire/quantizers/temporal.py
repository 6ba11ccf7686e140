"""Quantizers that give a weight a time axis: each step of the network sees weights of its own."""

from __future__ import annotations

import math
from abc import abstractmethod

from torch import Tensor

from isofire.quantizers.base import Quantizer


class TemporalQuantizer(Quantizer):
    """A weight `[C_out, ...]` in, `[T, C_out, ...]` out; codes have the output's shape, levels are `[T, C_out, L]`.

    As a parametrization it needs `unsafe=True`, because it changes the shape. It is no map of single values, so it has
    no table. The levels of step t are each channel's own, for the weight that `calibrate` or the latest `forward` saw.

    Parameters
    ----------
    steps
        T.
    levels
        L.
    channels
        C_out; `calibrate` corrects it.
    """

    def __init__(self, steps: int, levels: int, *, channels: int = 1) -> None:
        super().__init__(math.log2(levels), granularity="channel", channels=channels, channel_axis=0)
        self.steps = steps

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """Return the levels of every step, `[T, *x.shape]`, in the dtype of `x`."""
