"""IF, LIF and parametric LIF neurons."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from isofire.errors import SpecError
from isofire.neurons.base import Backend, Neuron
from isofire.neurons.dynamics import IF as IF_KIND
from isofire.neurons.dynamics import LIF as LIF_KIND
from isofire.neurons.dynamics import PLIF, Dynamics
from isofire.neurons.surrogate import Sigmoid, Surrogate


class IF(Neuron):
    """Integrate-and-fire: H = V + X; spike where H >= v_threshold; then reset.

    Parameters
    ----------
    v_threshold
        Firing threshold, in the units of the input.
    v_reset
        Hard reset to this value; None for a soft reset (subtract the threshold).
    detach_reset
        Whether gradients ignore the reset path.
    v_floor
        Membranes do not fall below this; None for no floor.
    several
        Fire as many spikes in a step as thresholds fit below the membrane (Sinabs' MultiSpike); needs a soft reset.
    surrogate
        Replaces the spike's derivative in the backward pass.

    Examples
    --------
    >>> import torch
    >>> IF()(torch.full((4, 1, 1), 0.5)).flatten().tolist()
    [0.0, 1.0, 0.0, 1.0]
    """

    def __init__(
        self,
        *,
        v_threshold: float = 1.0,
        v_reset: float | None = 0.0,
        detach_reset: bool = False,
        v_floor: float | None = None,
        several: bool = False,
        surrogate: Surrogate | None = None,
        backend: Backend = "auto",
    ) -> None:
        constants = _constants(v_threshold, v_reset, detach_reset, v_floor, several, surrogate)
        super().__init__(Dynamics(IF_KIND, **constants), backend)


class LIF(Neuron):
    """Leaky integrate-and-fire with time constant `tau` (in steps).

    decay_input: H = V + (X - (V - v_reset)) / tau; else H = V - (V - v_reset) / tau + X. The defaults are those of
    SpikingJelly's LIFNode. Other parameters as in `IF`.
    """

    def __init__(
        self,
        tau: float = 2.0,
        *,
        decay_input: bool = True,
        v_threshold: float = 1.0,
        v_reset: float | None = 0.0,
        detach_reset: bool = False,
        v_floor: float | None = None,
        several: bool = False,
        surrogate: Surrogate | None = None,
        backend: Backend = "auto",
    ) -> None:
        constants = _constants(v_threshold, v_reset, detach_reset, v_floor, several, surrogate)
        super().__init__(Dynamics(LIF_KIND, tau=tau, decay_input=decay_input, **constants), backend)


class ParametricLIF(Neuron):
    """LIF whose 1/tau = sigmoid(w) is learned, one `w` a layer (Fang et al. 2021, "Incorporating Learnable ...").

    Parameters
    ----------
    init_tau
        Time constant at the start, > 1. Other parameters as in `LIF`.
    """

    def __init__(
        self,
        init_tau: float = 2.0,
        *,
        decay_input: bool = True,
        v_threshold: float = 1.0,
        v_reset: float | None = 0.0,
        detach_reset: bool = False,
        v_floor: float | None = None,
        several: bool = False,
        surrogate: Surrogate | None = None,
        backend: Backend = "auto",
    ) -> None:
        if not (math.isfinite(init_tau) and init_tau > 1.0):
            raise SpecError(f"init_tau must be finite and greater than 1, got {init_tau}; use IF for no leak")
        constants = _constants(v_threshold, v_reset, detach_reset, v_floor, several, surrogate)
        super().__init__(Dynamics(PLIF, tau=init_tau, decay_input=decay_input, **constants), backend)
        self.w = nn.Parameter(torch.tensor(-math.log(init_tau - 1.0)))

    def decay(self) -> Tensor:
        return self.w.sigmoid()


def _constants(
    v_threshold: float,
    v_reset: float | None,
    detach_reset: bool,
    v_floor: float | None,
    several: bool,
    surrogate: Surrogate | None,
) -> dict:
    return {
        "v_threshold": v_threshold,
        "v_reset": v_reset,
        "detach_reset": detach_reset,
        "v_floor": v_floor,
        "several": several,
        "surrogate": Sigmoid() if surrogate is None else surrogate,
    }
