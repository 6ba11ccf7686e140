"""Levels whose gradient is a smoothed staircase's: slopes of sigmoids at the bins' edges."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from isofire.quantizers import ste
from isofire.quantizers.base import Granularity
from isofire.quantizers.levels import Levels

SHARPNESS = 2.0
"""T of SpQuant-SNN's published code."""


class StepwiseLevels(Levels):
    """Given levels; backward, d q / d v = sum over edges e of T sigma'(T (v - e) / unit), with T = 2.

    Parameters
    ----------
    levels, granularity, channel_axis
        See `Levels`; the edges are the midpoints.
    unit
        What distances are measured by: the gap between two levels of the source.
    """

    unit: Tensor

    def __init__(
        self, levels: Sequence[float], *, unit: float, granularity: Granularity = "tensor", channel_axis: int = 0
    ) -> None:
        super().__init__(levels, granularity=granularity, channel_axis=channel_axis)
        self.register_buffer("unit", torch.tensor([unit], dtype=torch.float32))

    @property
    def is_fixed(self) -> bool:
        # the kernels pass gradients on as they are
        return not torch.is_grad_enabled()

    def _with_gradient(self, x: Tensor, q: Tensor) -> Tensor:
        edges, unit = self.edges[0].clone(), self.unit.clone()

        def slope(x: Tensor) -> Tensor:
            total = torch.zeros_like(x)
            for edge in edges:
                s = torch.sigmoid(SHARPNESS * (x - edge) / unit)
                total += SHARPNESS * s * (1 - s)
            return total

        return ste.sloped(x, q, slope)
