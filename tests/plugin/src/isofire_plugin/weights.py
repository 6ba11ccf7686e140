"""A weight method in one file: signs times each channel's mean magnitude (XNOR-Net, Rastegari et al. 2016)."""

from __future__ import annotations

import torch
from torch import Tensor

from isofire.quantizers import Quantizer, WeightSetting, ste
from isofire.quantizers.grids import check_codes
from isofire.quantizers.rows import along


class Signs(Quantizer):
    """Levels -a and a of each output channel, a = mean|w|; a weight of 0 counts as negative."""

    scale: Tensor

    def __init__(self, channels: int = 1) -> None:
        super().__init__(1, granularity="channel", channels=channels)
        self.register_buffer("scale", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        return ste.plain(x, self.decode(self.codes(x)).to(x.dtype))

    @torch.no_grad()
    def calibrate(self, x: Tensor) -> None:
        scale = self._rows_to_fit(x).values.abs().mean(1).clamp(min=2.0**-64)
        self._store("scale", scale)
        self.channels = scale.numel()
        self._mark_ready()

    @torch.no_grad()
    def codes(self, x: Tensor) -> Tensor:
        self._require_ready()
        return (self._checked(x) > 0).to(torch.int32)

    @torch.no_grad()
    def decode(self, codes: Tensor) -> Tensor:
        self._require_ready()
        check_codes(codes, 2)
        return (2.0 * codes - 1) * along(self.scale, codes.ndim, 0)

    @torch.no_grad()
    def levels(self) -> Tensor:
        self._require_ready()
        return torch.stack([-self.scale, self.scale], 1)

    @property
    def is_fixed(self) -> bool:
        return True


class SignWeights(WeightSetting, frozen=True, kw_only=True, tag="signs"):
    """One bit, without anything to choose."""

    def build(self, channels: int) -> Signs:
        return Signs(channels)

    def table_numbers(self, groups: int) -> int:
        return groups
