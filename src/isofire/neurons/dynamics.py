"""One step of a neuron, as pure functions on tensors: charge, fire, reset.

The order of the floating-point operations is part of the contract: the reference, the torch path and the native kernels
follow it, so their spikes agree bit for bit.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import SupportsFloat, TypedDict

import torch
from torch import Tensor

from isofire.errors import SpecError
from isofire.neurons.surrogate import Sigmoid, Surrogate

State = tuple[Tensor, ...]
"""A neuron's variables that last from step to step, each [N, ...]; the membrane potential first."""


class Common(TypedDict, total=False):
    """The parameters that every neuron has; see `Dynamics`."""

    v_threshold: float
    v_reset: float | None
    detach_reset: bool
    v_floor: float | None
    several: bool
    surrogate: Surrogate


@dataclass(frozen=True, kw_only=True)
class Dynamics(ABC):
    """Constants of a layer of neurons and what they do in one step. A new kind defines `charge`, and what else differs.

    It is a dataclass too, `@dataclass(frozen=True, kw_only=True)`, whose fields are its constants. A state is always a
    tuple, also where it has the membrane alone: `(v,) = state`, and `return (v + x,)`.

    `tensors` are those of `Neuron.tensors()`: constants that are learned, such as PLIF's 1/tau, or each neuron's own.

    Parameters
    ----------
    v_threshold
        A neuron fires where its membrane has reached it, in the units of the input.
    v_reset
        Hard reset to this value, or None for a soft reset (subtract the threshold; rest at 0).
    detach_reset
        Whether the gradient ignores the path through the reset.
    v_floor
        Lowest membrane potential that is kept from step to step, or None.
    several
        Whether a neuron fires as many spikes in a step as thresholds fit below its membrane (Sinabs' MultiSpike); needs
        a soft reset.
    surrogate
        Replaces the spike's derivative in the backward pass; None is `Sigmoid()`.
    """

    v_threshold: float = 1.0
    v_reset: float | None = 0.0
    detach_reset: bool = False
    v_floor: float | None = None
    several: bool = False
    surrogate: Surrogate = Sigmoid()  # noqa: RUF009 - a frozen value

    def __init_subclass__(cls, **options: object) -> None:
        if options:
            raise SpecError(
                f"dynamics are dataclasses: write @dataclass(frozen=True, kw_only=True) above class {cls.__name__}"
                f"(...), without {', '.join(options)} in its brackets"
            )

    def __post_init__(self) -> None:
        if self.surrogate is None:
            object.__setattr__(self, "surrogate", Sigmoid())
        for name, optional in (("v_threshold", False), ("v_reset", True), ("v_floor", True)):
            if not optional or getattr(self, name) is not None:
                require_number(name, getattr(self, name))
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
        """One spike a step and no floor."""
        return self.v_floor is None and not self.several

    @property
    def rest(self) -> float:
        """Membrane potential before the first step."""
        return 0.0 if self.v_reset is None else self.v_reset

    def initial(self, x: Tensor) -> State:
        """The state before the first step, for inputs like `x` [N, ...]."""
        return (torch.full_like(x, self.rest),)

    @abstractmethod
    def charge(self, x: Tensor, state: State, tensors: State = ()) -> State:
        """The state after input `x` [N, ...] has arrived, before the neuron may fire: a tuple, as `state` is."""

    def threshold(self, charged: State, tensors: State = ()) -> float | Tensor:
        """What the charged membrane is compared with."""
        return self.v_threshold

    def fire(self, charged: State, tensors: State = ()) -> Tensor:
        """Spikes (0. or 1.): 1 where the membrane has reached the threshold (h >= threshold); or how often it has."""
        h, threshold = charged[0], self.threshold(charged, tensors)
        if self.several:
            return (h / threshold).floor().clamp(min=0.0)
        return (h >= threshold).to(h.dtype)

    def distance(self, charged: State, tensors: State = ()) -> Tensor:
        """Membrane minus threshold, where the surrogate is taken; with several spikes, minus its nearest multiple."""
        h, threshold = charged[0], self.threshold(charged, tensors)
        if self.several:
            return h - threshold * (h / threshold).detach().round().clamp(min=1.0)
        return h - threshold

    def reset(self, charged: State, s: Tensor, tensors: State = ()) -> State:
        """The state after the spikes `s`: membrane s * v_reset + (1 - s) * h, or h - s * threshold with a soft reset.

        It does not fall below `v_floor`. Other variables stay as they are.
        """
        h, *others = charged
        v = h - s * self.threshold(charged, tensors) if self.v_reset is None else s * self.v_reset + (1.0 - s) * h
        return (v if self.v_floor is None else v.clamp(min=self.v_floor), *others)

    def about(self) -> str:
        """The constants, as a module's repr shows them."""
        more = (
            f"{'' if self.v_floor is None else f', v_floor={self.v_floor:g}'}{', several=True' if self.several else ''}"
        )
        return f"v_threshold={self.v_threshold:g}, v_reset={self.v_reset}{more}, surrogate={self.surrogate}"


def require_number(name: str, value: object) -> None:
    """Raise SpecError unless a constant of a layer is one number."""
    several = isinstance(value, Tensor) and value.numel() != 1
    if several or not isinstance(value, SupportsFloat):
        given = f"a tensor of shape {list(value.shape)}" if isinstance(value, Tensor) else repr(value)
        raise SpecError(
            f"{name} must be one number for all neurons of the layer, got {given}; CubaLIF takes one a neuron"
        )
