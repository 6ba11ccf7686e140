"""The oracle: neurons stepped one by one in plain autograd. Slow and obvious; the fast paths must equal it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

from isofire.errors import IsofireError, ModelError
from isofire.neurons.dynamics import Dynamics, State
from isofire.neurons.surrogate import Surrogate


class StateMap(Protocol):
    """What is done to the membrane within the step, such as a `MembraneQuantizer`."""

    @property
    def placement(self) -> str: ...

    def __call__(self, state: Tensor, /) -> Tensor: ...


class Spike(torch.autograd.Function):
    """Spikes forward; backward, the surrogate's slope at the membrane's distance from the threshold."""

    @staticmethod
    def forward(ctx: Any, distance: Tensor, spikes: Tensor, surrogate: Surrogate) -> Tensor:
        ctx.save_for_backward(distance)
        ctx.surrogate = surrogate
        return spikes

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (distance,) = ctx.saved_tensors
        return grads[0] * ctx.surrogate.slope(distance), None, None


def run(
    d: Dynamics,
    x: Tensor,
    tensors: State = (),
    membrane: StateMap | None = None,
    feedback: Callable[[Tensor], Tensor] | None = None,
    kept: list[State] | None = None,
) -> Tensor:
    """Spikes [T, N, ...] for inputs [T, N, ...], starting at rest.

    Parameters
    ----------
    tensors
        Constants of the layer that are tensors, as `Neuron.tensors` gives them.
    membrane
        Quantizes the membrane before it is compared with the threshold (`pre_fire`; the paper, snnTorch), or after
        the reset, as it is stored for the next step (`post_reset`; MINT, Q-SNN).
    feedback
        From the spikes of the step before to what is added to the input; no neuron has fired before the first.
    kept
        Gets the state after each step.
    """
    state = d.initial(x[0])
    spikes = []
    for step_input in x:
        if feedback is not None:
            step_input = step_input + feedback(spikes[-1] if spikes else torch.zeros_like(step_input))
        charged = _charged(d, step_input, state, tensors)
        if membrane is not None and membrane.placement == "pre_fire":
            charged = (membrane(charged[0]), *charged[1:])
        s: Tensor = Spike.apply(d.distance(charged, tensors), d.fire(charged, tensors).detach(), d.surrogate)  # type: ignore[assignment]
        state = d.reset(charged, s.detach() if d.detach_reset else s, tensors)
        if membrane is not None and membrane.placement == "post_reset":
            state = (membrane(state[0]), *state[1:])
        spikes.append(s)
        if kept is not None:
            kept.append(state)
    return torch.stack(spikes)


def _charged(d: Dynamics, x: Tensor, state: State, tensors: State) -> State:
    """The state after a charge; what a kind's own code does wrong is told with its class."""
    told = f"charge(x, state, tensors) of {type(d).__module__}.{type(d).__qualname__}"
    takes = "states are tuples of tensors [N, ...], the membrane first: (v,) = state, return (v + x,)"
    try:
        charged = d.charge(x, state, tensors)
    except (TypeError, ValueError) as error:
        if isinstance(error, IsofireError):
            raise
        raise ModelError(f"{told} failed: {type(error).__name__}: {error}; {takes}") from error
    if not isinstance(charged, tuple) or len(charged) != len(state):
        given = f"{len(charged)} tensors" if isinstance(charged, tuple) else type(charged).__name__
        raise ModelError(f"{told} must give a tuple of {len(state)}, as the state is, got {given}; {takes}")
    return charged
