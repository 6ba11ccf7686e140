"""What a NIR graph leaves open: how its continuous time is cut into steps, and what a spike does to the membrane."""

from __future__ import annotations

import math
from typing import Literal, get_args

from msgspec import Struct

from isofire.errors import SpecError
from isofire.neurons.kinds.cuba_lif import Synapse

Reset = Literal["value", "subtract"]


class Convention(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How to run a graph in steps.

    The defaults are NIR's own equations and snnTorch's step. Graphs that isofire wrote say it themselves.

    Parameters
    ----------
    dt
        Seconds a step. A LIF's membrane moves by dt / tau of its distance to v_leak + r x; an IF's by r x: the input of
        a step is the charge that it brings.
    reset
        "value": to the node's v_reset. "subtract": by the threshold.
    several
        Whether a neuron fires as many spikes in a step as thresholds fit below its membrane (Sinabs).
    v_floor
        Lowest membrane potential (Sinabs' min_v_mem); None for no floor.
    synapse
        Which current of a CubaLIF charges its membrane, as in `isofire.neurons.CubaLIF`: with the input of the step
        (snnTorch, Norse), "before_decay"; that of the step before (Euler's rule for NIR's equations), "before_input".

    Raises
    ------
    SpecError
        If dt is not positive, reset is unknown, or several goes with a reset to a value.
    """

    dt: float = 1e-4
    reset: Reset = "value"
    several: bool = False
    v_floor: float | None = None
    synapse: Synapse = "before_decay"

    def __post_init__(self) -> None:
        if not (math.isfinite(self.dt) and self.dt > 0):
            raise SpecError(f"dt must be a positive number of seconds, got {self.dt}")
        if self.reset not in get_args(Reset):
            raise SpecError(f"reset must be one of {', '.join(get_args(Reset))}, got {self.reset!r}")
        if self.synapse not in get_args(Synapse):
            raise SpecError(f"synapse must be one of {', '.join(get_args(Synapse))}, got {self.synapse!r}")
        if self.several and self.reset != "subtract":
            raise SpecError(f"several spikes a step need reset 'subtract', got {self.reset!r}")
