"""A library of spiking neurons that knows nothing of isofire: one cell, which keeps its state between calls."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Cell(nn.Module):
    """One step a call, [N, ...] -> spikes [N, ...]; the potential decays, adds up, and falls by 1 at a spike."""

    def __init__(self, decay: float = 0.5) -> None:
        super().__init__()
        self.decay = decay
        self.potential: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        charged = self.charge(x)
        spikes = (charged >= 1.0).to(x.dtype)
        self.potential = self.after(charged, spikes)
        return spikes

    def charge(self, x: Tensor) -> Tensor:
        before = torch.zeros_like(x) if self.potential is None else self.potential
        return self.decay * before + x

    def after(self, charged: Tensor, spikes: Tensor) -> Tensor:
        return charged - spikes
