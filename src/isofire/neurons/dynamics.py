"""One step of an integrate-and-fire neuron, as pure functions on tensors: charge, fire, reset.

The order of the floating-point operations is part of the contract: the reference, the torch path and the native kernels
follow it, so their spikes agree bit for bit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from isofire.errors import SpecError
from isofire.neurons.surrogate import Surrogate

IF, LIF, PLIF = "if", "lif", "plif"


@dataclass(frozen=True)
class Dynamics:
    """Constants of a layer of neurons.

    Parameters
    ----------
    kind
        "if", "lif" (time constant `tau`) or "plif" (1/tau is learned and passed beside the input).
    decay_input
        LIF and PLIF: whether the input is divided by tau too (SpikingJelly's `decay_input=True`).
    v_reset
        Hard reset to this value, or None for a soft reset (subtract the threshold; rest at 0).
    detach_reset
        Whether the gradient ignores the path through the reset.
    v_floor
        Lowest membrane potential that is kept from step to step, or None.
    several
        Whether a neuron fires as many spikes in a step as thresholds fit below its membrane; with a soft reset.
    """

    kind: str
    surrogate: Surrogate
    tau: float = 2.0
    decay_input: bool = True
    v_threshold: float = 1.0
    v_reset: float | None = 0.0
    detach_reset: bool = False
    v_floor: float | None = None
    several: bool = False

    def __post_init__(self) -> None:
        if not (math.isfinite(self.tau) and self.tau >= 1.0):
            raise SpecError(f"tau must be finite and at least 1 (in steps), got {self.tau}; use IF for no leak")
        if not math.isfinite(self.v_threshold):
            raise SpecError(f"v_threshold must be finite, got {self.v_threshold}")
        if self.v_reset is not None and not (math.isfinite(self.v_reset) and self.v_reset < self.v_threshold):
            raise SpecError(
                f"v_reset must be finite and lie below v_threshold ({self.v_threshold}), got {self.v_reset}; "
                "for a soft reset give v_reset=None"
            )
        if self.v_reset is None and self.v_threshold <= 0:
            raise SpecError(f"a soft reset needs v_threshold > 0, got {self.v_threshold}")
        if self.several and self.v_reset is not None:
            raise SpecError(f"several spikes a step need a soft reset (v_reset=None), got v_reset={self.v_reset}")
        if self.v_floor is not None and not (math.isfinite(self.v_floor) and self.v_floor <= self.rest):
            raise SpecError(f"v_floor must be finite and at most the rest ({self.rest}), got {self.v_floor}")

    @property
    def is_plain(self) -> bool:
        """Whether the fast paths know it: one spike a step, no floor."""
        return self.v_floor is None and not self.several

    @property
    def rest(self) -> float:
        """Membrane potential before the first step."""
        return 0.0 if self.v_reset is None else self.v_reset


def charge(d: Dynamics, x: Tensor, v: Tensor, decay: Tensor | None = None) -> Tensor:
    """Membrane after input `x` arrives at membrane `v`; `decay` is PLIF's learned 1/tau, a scalar tensor.

    if: v + x; lif: v + (x - (v - rest)) / tau, or v - (v - rest) / tau + x with undecayed input; plif: times 1/tau.
    """
    if d.kind == IF:
        return v + x
    leak = v - d.rest
    if d.kind == LIF:
        return v + (x - leak) / d.tau if d.decay_input else v - leak / d.tau + x
    assert decay is not None
    return v + (x - leak) * decay if d.decay_input else v - leak * decay + x


def fire(d: Dynamics, h: Tensor) -> Tensor:
    """Spikes (0. or 1.): 1 where the membrane has reached the threshold (h >= v_threshold); or how often it has."""
    if d.several:
        return (h / d.v_threshold).floor().clamp(min=0.0)
    return (h >= d.v_threshold).to(h.dtype)


def reset(d: Dynamics, h: Tensor, s: Tensor) -> Tensor:
    """Membrane after the spikes `s`: hard reset s * v_reset + (1 - s) * h, or soft reset h - s * v_threshold.

    It does not fall below `v_floor`.
    """
    v = h - s * d.v_threshold if d.v_reset is None else s * d.v_reset + (1.0 - s) * h
    return v if d.v_floor is None else v.clamp(min=d.v_floor)


def distance(d: Dynamics, h: Tensor) -> Tensor:
    """Membrane minus threshold, where the surrogate is taken; with several spikes, minus the nearest multiple of it."""
    if d.several:
        return h - d.v_threshold * (h / d.v_threshold).round().clamp(min=1.0)
    return h - d.v_threshold
