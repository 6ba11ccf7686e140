"""A leaky integrator: the membrane itself as a read-out."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from isofire.errors import ModelError, SpecError
from isofire.neurons.fold import StepLayer


class LI(StepLayer):
    """Membranes of neurons that never fire, [T, N, ...] -> [T, N, ...]: V = V + (X - V) / tau from V = 0.

    With undecayed input V = V - V / tau + X. It has no spikes: recorders and membrane quantizers leave it alone.

    Parameters
    ----------
    tau
        Time constant in steps, >= 1.
    decay_input
        Whether the input is divided by `tau` too.

    Examples
    --------
    >>> import torch
    >>> LI(2.0)(torch.ones(3, 1, 1)).flatten().tolist()
    [0.5, 0.75, 0.875]
    """

    def __init__(self, tau: float = 2.0, *, decay_input: bool = True) -> None:
        super().__init__()
        if not (math.isfinite(tau) and tau >= 1.0):
            raise SpecError(f"tau must be finite and at least 1 (in steps), got {tau}")
        self.tau, self.decay_input = tau, decay_input

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim < 2 or not x.shape[0]:
            raise ModelError(f"LI needs inputs [T, N, ...] with T >= 1 steps, got shape {tuple(x.shape)}")
        v, membranes = torch.zeros_like(x[0]), []
        for step in x:
            v = v + (step - v) / self.tau if self.decay_input else v - v / self.tau + step
            membranes.append(v)
        return torch.stack(membranes)

    def extra_repr(self) -> str:
        return f"tau={self.tau:g}, decay_input={self.decay_input}"
