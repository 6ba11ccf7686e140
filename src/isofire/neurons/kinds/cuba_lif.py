"""Current-based LIF: a synaptic current that decays between input and membrane, as chips have it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, Unpack, get_args

import torch
from torch import Tensor

from isofire.errors import ModelError, SpecError
from isofire.neurons.base import Backend, Neuron
from isofire.neurons.cuba_paths import CUBA_NATIVE
from isofire.neurons.dynamics import Common, Dynamics, State
from isofire.neurons.recompute import RECOMPUTE
from isofire.neurons.registry import register_neuron
from isofire.neurons.response import response

Synapse = Literal["before_decay", "after_decay", "before_input"]


class CubaCommon(Common, total=False):
    """`Common`, with a threshold a neuron if wanted."""

    v_threshold: float | Tensor  # type: ignore[misc]


@dataclass(frozen=True, kw_only=True)
class CubaDynamics(Dynamics):
    """State: membrane v and current i. Tensors: tau_mem, tau_syn and threshold, scalars or one a neuron.

    `v_threshold` is the least of the neurons' thresholds. `subtracts`: a fourth tensor is what a spike subtracts.
    """

    synapse: Synapse
    decay_input: bool
    subtracts: bool = False

    def __post_init__(self) -> None:
        if self.synapse not in get_args(Synapse):
            raise SpecError(f"synapse must be one of {', '.join(get_args(Synapse))}, got {self.synapse!r}")
        if self.subtracts and (self.v_reset is not None or self.several):
            raise SpecError("v_subtract needs a soft reset (v_reset=None) and one spike a step (several=False)")
        super().__post_init__()

    def initial(self, x: Tensor) -> State:
        return (*super().initial(x), torch.zeros_like(x))

    def charge(self, x: Tensor, state: State, tensors: State = ()) -> State:
        (v, i), (tau_mem, tau_syn, *_) = state, tensors
        used, i = self._current(x, i, tau_syn)
        leak = v - self.rest
        h = v + (used - leak) / tau_mem if self.decay_input else v - leak / tau_mem + used
        return h, i

    def threshold(self, charged: State, tensors: State = ()) -> Tensor:
        return tensors[2]

    def reset(self, charged: State, s: Tensor, tensors: State = ()) -> State:
        if not self.subtracts:
            return super().reset(charged, s, tensors)
        h, *others = charged
        v = h - s * tensors[3]
        return (v if self.v_floor is None else v.clamp(min=self.v_floor), *others)

    def about(self) -> str:
        return f"synapse={self.synapse!r}, decay_input={self.decay_input}, {super().about()}"

    def _current(self, x: Tensor, i: Tensor, tau_syn: Tensor) -> tuple[Tensor, Tensor]:
        """The current that charges the membrane in this step, and the one that is left for the next."""
        if self.synapse == "after_decay":
            reached = i + x
            left = reached - reached / tau_syn
            return left, left
        left = i - i / tau_syn + x
        return (i if self.synapse == "before_input" else left), left


class CubaLIF(Neuron):
    """Current-based LIF: I' = I - I / tau_syn + X charges the membrane in place of X. Time constants in steps.

    Parameters
    ----------
    tau_mem, tau_syn
        Membrane and synaptic time constants, >= 1: a number, or a tensor that broadcasts against one image's neurons
        [C, ...]. A factor a of others' (snnTorch's alpha and beta) is tau = 1 / (1 - a).
    synapse
        Which current charges the membrane. "before_decay": I - I / tau_syn + X, which new input reaches undecayed
        (Loihi, snnTorch's Synaptic, Norse's LIFCell). "after_decay": J - J / tau_syn with J = I + X (Xylo).
        "before_input": I of the step before, so that an input acts one step later (NIR's equations by Euler's rule).
    decay_input
        H = V + (I - (V - v_reset)) / tau_mem; else H = V - (V - v_reset) / tau_mem + I.
    v_threshold
        As in `Dynamics`, or a tensor like the time constants.
    v_subtract
        What a spike of a soft reset subtracts, if not the threshold: a number, or a tensor like the time constants.
        snnTorch's reset of the step after, U' = b U + X - S threshold, is threshold / b. Not in the compiled kernels.

    Other parameters as in `Dynamics`. The time constants and thresholds are buffers, which training leaves alone.

    Examples
    --------
    >>> import torch
    >>> CubaLIF(2.0, 2.0)(torch.tensor([1.0, 0.0, 0.0]).view(3, 1, 1)).flatten().tolist()
    [1.0, 0.0, 0.0]
    """

    fast_paths = (CUBA_NATIVE, RECOMPUTE)
    dynamics: CubaDynamics
    fires_above: bool = False
    """Whether what it stands for fires above its threshold, which is the next smaller number than this neuron's."""
    tau_mem: Tensor
    tau_syn: Tensor
    v_threshold: Tensor
    v_subtract: Tensor | None

    def __init__(
        self,
        tau_mem: float | Tensor = 2.0,
        tau_syn: float | Tensor = 2.0,
        *,
        synapse: Synapse = "before_decay",
        decay_input: bool = False,
        v_subtract: float | Tensor | None = None,
        backend: Backend = "auto",
        **common: Unpack[CubaCommon],
    ) -> None:
        threshold = _constant("v_threshold", common.pop("v_threshold", 1.0))
        constants = {**common, "v_threshold": float(threshold.min()), "synapse": synapse, "decay_input": decay_input}
        constants["subtracts"] = v_subtract is not None
        super().__init__(CubaDynamics(**constants), backend)  # type: ignore[arg-type]
        self.register_buffer("tau_mem", _tau("tau_mem", tau_mem))
        self.register_buffer("tau_syn", _tau("tau_syn", tau_syn))
        self.register_buffer("v_threshold", threshold)
        self.register_buffer("v_subtract", None if v_subtract is None else _constant("v_subtract", v_subtract))
        self.register_load_state_dict_post_hook(_take_threshold)

    def tensors(self) -> State:
        found = self.tau_mem, self.tau_syn, self.v_threshold
        return found if self.v_subtract is None else (*found, self.v_subtract)

    @property
    def threshold(self) -> Tensor:
        return self.v_threshold

    def decays(self) -> dict[str, Tensor]:
        return {"membrane": 1.0 / self.tau_mem.double(), "synapse": 1.0 / self.tau_syn.double()}

    def round_decays_(self, rounded: Callable[[str, Tensor], Tensor]) -> None:
        shares = {state: rounded(state, share) for state, share in self.decays().items()}
        self.tau_mem = (1.0 / shares["membrane"]).to(self.tau_mem)
        self.tau_syn = (1.0 / shares["synapse"]).to(self.tau_syn)

    def response(self) -> Tensor:
        shares = self.decays()
        after = self.dynamics.synapse == "after_decay"
        answer = response(shares["membrane"], shares["synapse"], after=after)
        return answer * (shares["membrane"] if self.dynamics.decay_input else 1.0)

    def set_threshold_(self, threshold: Tensor) -> None:
        self.dynamics = replace(self.dynamics, v_threshold=float(threshold.min()))
        self.v_threshold = threshold.to(self.v_threshold)

    def forward(self, x: Tensor, norm: object = None, repeat: int | None = None) -> Tensor:
        image = x.shape[1 if repeat is not None else 2 :]
        for name, values in zip(("tau_mem", "tau_syn", "v_threshold", "v_subtract"), self.tensors(), strict=False):
            shape = values.shape
            if len(shape) > len(image) or any(
                a not in (1, b) for a, b in zip(reversed(shape), reversed(image), strict=False)
            ):
                raise ModelError(f"{name} of shape {list(shape)} does not fit a layer of {list(image)} neurons")
        return super().forward(x, norm, repeat)  # type: ignore[arg-type]

    def extra_repr(self) -> str:
        shown = (f"{n}={_shown(getattr(self, n))}" for n in ("tau_mem", "tau_syn"))
        return ", ".join((*shown, self.dynamics.about()))


def _take_threshold(neuron: CubaLIF, _keys: object = None) -> None:
    """Have the constants know the thresholds that a state dict has brought."""
    if not neuron.v_threshold.is_meta:
        neuron.dynamics = replace(neuron.dynamics, v_threshold=float(neuron.v_threshold.min()))


def _constant(name: str, value: float | Tensor) -> Tensor:
    # a number is read here also while a network is planned without memory
    place = value.device if isinstance(value, Tensor) else "cpu"
    found = torch.as_tensor(value, dtype=torch.float32, device=place).detach().clone()
    if not found.numel() or not bool(torch.isfinite(found).all()):
        raise SpecError(f"{name} must be finite, got {value}")
    return found


def _tau(name: str, value: float | Tensor) -> Tensor:
    found = _constant(name, value)
    if float(found.min()) < 1.0:
        raise SpecError(f"{name} must be at least 1 (in steps), got {float(found.min()):g}; 1 forgets within a step")
    return found


def _shown(values: Tensor) -> str:
    return f"{float(values):g}" if values.numel() == 1 else f"{float(values.min()):g}..{float(values.max()):g}"


register_neuron("cuba_lif", CubaLIF)
