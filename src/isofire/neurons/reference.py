"""The oracle: neurons stepped one by one in plain autograd. Slow and obvious; the fast paths must equal it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from isofire.neurons.dynamics import Dynamics, charge, distance, fire, reset
from isofire.neurons.membrane import MembraneQuantizer


class Spike(torch.autograd.Function):
    """Step function forward, surrogate slope backward."""

    @staticmethod
    def forward(ctx: Any, h: Tensor, dynamics: Dynamics) -> Tensor:
        ctx.save_for_backward(h)
        ctx.dynamics = dynamics
        return fire(dynamics, h)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (h,) = ctx.saved_tensors
        return grads[0] * ctx.dynamics.surrogate.slope(distance(ctx.dynamics, h)), None


def run(d: Dynamics, x: Tensor, decay: Tensor | None = None, membrane: MembraneQuantizer | None = None) -> Tensor:
    """Spikes [T, N, ...] for inputs [T, N, ...], starting at rest.

    Parameters
    ----------
    decay
        PLIF's 1/tau, a scalar tensor; None otherwise.
    membrane
        Quantizes the membrane before it is compared with the threshold (`pre_fire`; the paper, snnTorch), or after
        the reset, as it is stored for the next step (`post_reset`; MINT, Q-SNN).
    """
    v = torch.full_like(x[0], d.rest)
    spikes = []
    for step_input in x:
        h = charge(d, step_input, v, decay)
        if membrane is not None and membrane.placement == "pre_fire":
            h = membrane(h)
        s: Tensor = Spike.apply(h, d)  # type: ignore[assignment]
        v = reset(d, h, s.detach() if d.detach_reset else s)
        if membrane is not None and membrane.placement == "post_reset":
            v = membrane(v)
        spikes.append(s)
    return torch.stack(spikes)
