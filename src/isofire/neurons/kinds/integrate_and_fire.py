"""IF, LIF and parametric LIF neurons."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Unpack

import torch
from torch import Tensor, nn

from isofire.errors import SpecError
from isofire.neurons.base import Backend, Neuron
from isofire.neurons.dynamics import Common, State, require_number
from isofire.neurons.paths import NATIVE, TORCH, TRITON
from isofire.neurons.registry import register_neuron
from isofire.neurons.response import response
from isofire.neurons.single_state import MembraneDynamics
from isofire.quantizers.ste import plain


@dataclass(frozen=True, kw_only=True)
class IFDynamics(MembraneDynamics):
    """H = V + X."""

    @property
    def kernel(self) -> int:
        return 0

    def charge(self, x: Tensor, state: State, tensors: State = ()) -> State:
        return (state[0] + x,)

    def through_charge(self, g: Tensor, decay: Tensor | None) -> tuple[Tensor, Tensor]:
        return g, g


@dataclass(frozen=True, kw_only=True)
class LIFDynamics(MembraneDynamics):
    """H = V + (X - (V - rest)) / tau, or V - (V - rest) / tau + X with undecayed input; `tau` in steps."""

    tau: float = 2.0
    decay_input: bool = True

    def __post_init__(self) -> None:
        require_number("tau", self.tau)
        if not (math.isfinite(self.tau) and self.tau >= 1.0):
            raise SpecError(f"tau must be finite and at least 1 (in steps), got {self.tau}; use IF for no leak")
        super().__post_init__()

    @property
    def kernel(self) -> int:
        return 1 if self.decay_input else 2

    @property
    def kernel_tau(self) -> float:
        return self.tau

    def charge(self, x: Tensor, state: State, tensors: State = ()) -> State:
        (v,) = state
        leak = v - self.rest
        return (v + (x - leak) / self.tau if self.decay_input else v - leak / self.tau + x,)

    def through_charge(self, g: Tensor, decay: Tensor | None) -> tuple[Tensor, Tensor]:
        leak = g / self.tau
        return (leak if self.decay_input else g), g - leak

    def about(self) -> str:
        return f"tau={self.tau:g}, decay_input={self.decay_input}, {super().about()}"


@dataclass(frozen=True, kw_only=True)
class ParametricLIFDynamics(LIFDynamics):
    """LIF with a learned 1/tau, a scalar tensor, in place of the division by `tau`, which is where it started."""

    @property
    def kernel(self) -> int:
        return 3 if self.decay_input else 4

    def charge(self, x: Tensor, state: State, tensors: State = ()) -> State:
        (v,), (decay,) = state, tensors
        leak = v - self.rest
        return (v + (x - leak) * decay if self.decay_input else v - leak * decay + x,)

    def through_charge(self, g: Tensor, decay: Tensor | None) -> tuple[Tensor, Tensor]:
        assert decay is not None
        leak = g * decay
        return (leak if self.decay_input else g), g - leak

    def drive(self, x: Tensor, v: Tensor) -> Tensor:
        leak = v - self.rest
        return x - leak if self.decay_input else -leak


class _MembraneNeuron(Neuron):
    """The three below: run by the fused paths."""

    dynamics: MembraneDynamics

    fast_paths = (NATIVE, TRITON, TORCH)


class IF(_MembraneNeuron):
    """Integrate-and-fire: H = V + X; spike where H >= v_threshold; then reset. Parameters as in `Dynamics`.

    Examples
    --------
    >>> import torch
    >>> IF()(torch.full((4, 1, 1), 0.5)).flatten().tolist()
    [0.0, 1.0, 0.0, 1.0]
    """

    def __init__(self, *, backend: Backend = "auto", **common: Unpack[Common]) -> None:
        super().__init__(IFDynamics(**common), backend)


class LIF(_MembraneNeuron):
    """Leaky integrate-and-fire with time constant `tau` (in steps).

    decay_input: H = V + (X - (V - v_reset)) / tau; else H = V - (V - v_reset) / tau + X. The defaults are those of
    SpikingJelly's LIFNode. Other parameters as in `Dynamics`.
    """

    def __init__(
        self, tau: float = 2.0, *, decay_input: bool = True, backend: Backend = "auto", **common: Unpack[Common]
    ) -> None:
        super().__init__(LIFDynamics(tau=tau, decay_input=decay_input, **common), backend)

    def decays(self) -> dict[str, Tensor]:
        return {"membrane": torch.tensor(1.0 / self._constants.tau, dtype=torch.float64)}

    def round_decays_(self, rounded: Callable[[str, Tensor], Tensor]) -> None:
        share = float(rounded("membrane", self.decays()["membrane"]))
        self.dynamics = replace(self._constants, tau=1.0 / share)

    def response(self) -> Tensor:
        share = self.decays()["membrane"]
        return response(share) * (share if self._constants.decay_input else 1.0)

    @property
    def _constants(self) -> LIFDynamics:
        assert isinstance(self.dynamics, LIFDynamics)
        return self.dynamics


class ParametricLIF(_MembraneNeuron):
    """LIF whose 1/tau = sigmoid(w) is learned, one `w` a layer (Fang et al. 2021, "Incorporating Learnable ...").

    Parameters
    ----------
    init_tau
        Time constant at the start, > 1. Other parameters as in `LIF`.
    """

    def __init__(
        self, init_tau: float = 2.0, *, decay_input: bool = True, backend: Backend = "auto", **common: Unpack[Common]
    ) -> None:
        if "tau" in common:
            raise SpecError("a parametric LIF learns its tau; give the one that it starts from as init_tau")
        require_number("init_tau", init_tau)
        if not (math.isfinite(init_tau) and init_tau > 1.0):
            raise SpecError(f"init_tau must be finite and greater than 1, got {init_tau}; use IF for no leak")
        dynamics = ParametricLIFDynamics(tau=init_tau, decay_input=decay_input, **common)
        super().__init__(dynamics, backend)
        self.w = nn.Parameter(torch.tensor(-math.log(init_tau - 1.0)))
        self._rounded: Callable[[str, Tensor], Tensor] | None = None

    def decay(self) -> Tensor:
        """1/tau, a scalar tensor that carries gradient, rounded where `round_decays_` says so."""
        share = self.w.sigmoid()
        return share if self._rounded is None else plain(share, self._rounded("membrane", share.detach()))

    def decays(self) -> dict[str, Tensor]:
        return {"membrane": self.decay().detach().double()}

    def round_decays_(self, rounded: Callable[[str, Tensor], Tensor]) -> None:
        self._rounded = rounded

    def tensors(self) -> State:
        return (self.decay(),)

    def extra_repr(self) -> str:
        _, _, others = self.dynamics.about().partition(", ")
        return f"tau={float(1.0 / self.decay().detach()):g} (learned), {others}"


register_neuron("if", IF)
register_neuron("lif", LIF)
register_neuron("plif", ParametricLIF)
