"""A layer of isofire's neurons as plain numbers, whatever its class: what a chip's neurons must do in its place."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import Tensor

from isofire.errors import ModelError
from isofire.neurons import CubaLIF, Neuron, ParametricLIF, Recurrent
from isofire.neurons.kinds.cuba_lif import CubaDynamics, Synapse
from isofire.neurons.kinds.integrate_and_fire import IFDynamics, LIFDynamics
from isofire.neurons.response import response

_NO_LEAK = 1e30
"""A time constant whose leak float32 does not see."""


@dataclass(frozen=True)
class NeuronForm:
    """Constants of a layer of IF, LIF or current-based LIF neurons; tensors are float64, one number or one a neuron.

    Parameters
    ----------
    tau, tau_synapse
        Time constants in steps: the membrane keeps 1 - 1 / tau, all of it if tau is infinite. `tau_synapse` 1: no
        current is kept.
    synapse
        Which current charges the membrane, as in `CubaLIF`.
    decay_input
        Whether the current is divided by `tau`.
    threshold, floor
        From `rest`.
    soft
        Whether a spike subtracts the threshold; else it resets the membrane to `rest`.
    several
        Whether a neuron fires as many spikes in a step as thresholds fit below its membrane.
    subtract
        What a spike subtracts, if not the threshold.
    above
        Whether a membrane that equals the threshold does not fire: the threshold is the next number then.
    """

    tau: Tensor
    tau_synapse: Tensor
    synapse: Synapse
    decay_input: bool
    threshold: Tensor
    rest: float
    soft: bool
    several: bool
    floor: float | None
    subtract: Tensor | None = None
    above: bool = False

    @classmethod
    def of(cls, name: str, neuron: Neuron) -> NeuronForm:
        """The numbers of a neuron of isofire's.

        Raises
        ------
        ModelError
            If it is of another kind.
        """
        neuron = neuron.cell if isinstance(neuron, Recurrent) else neuron
        d = neuron.dynamics
        synapse: Synapse = "before_decay"
        subtract = None
        tau_synapse, threshold, decay_input = _number(1.0), _number(d.v_threshold), False
        match d:
            case IFDynamics():
                tau = _number(float("inf"))
            case LIFDynamics():
                # a learned 1 / tau is a tensor of the neuron
                tau = 1.0 / neuron.decay().detach().double() if isinstance(neuron, ParametricLIF) else _number(d.tau)
                decay_input = d.decay_input
            case CubaDynamics():
                cuba = cast(CubaLIF, neuron)
                tau, tau_synapse = cuba.tau_mem.double(), cuba.tau_syn.double()
                threshold, synapse, decay_input = cuba.v_threshold.double(), d.synapse, d.decay_input
                subtract = None if cuba.v_subtract is None else cuba.v_subtract.double().cpu()
            case _:
                raise ModelError(f"{name!r} ({type(neuron).__name__}) is none of IF, LIF, ParametricLIF, CubaLIF")
        floor = None if d.v_floor is None else d.v_floor - d.rest
        return cls(
            tau.cpu(), tau_synapse.cpu(), synapse, decay_input, threshold.cpu() - d.rest, d.rest,
            d.v_reset is None, d.several, floor, subtract, getattr(neuron, "fires_above", False),
        )  # fmt: skip

    @property
    def has_synapse(self) -> bool:
        """Whether a current is kept from step to step, or used a step later."""
        return self.synapse != "before_decay" or bool((self.tau_synapse != 1.0).any())

    @property
    def leaks(self) -> bool:
        """Whether the membrane decays."""
        return bool(torch.isfinite(self.tau).any())

    @property
    def membrane_gain(self) -> Tensor:
        """How much more than its membrane counts what is added to it undivided: tau where the input decays, else 1."""
        return self.tau if self.decay_input else torch.ones_like(self.tau)

    @property
    def synapse_gain(self) -> Tensor:
        """What a constant input of 1 a step brings the current to that charges the membrane."""
        return self.tau_synapse - 1.0 if self.synapse == "after_decay" else self.tau_synapse

    def scaled(self, by: Tensor) -> NeuronForm:
        """With a threshold, and what is subtracted, `by` times as large."""
        subtract = None if self.subtract is None else self.subtract * by
        return replace(self, threshold=self.threshold * by, subtract=subtract)

    def response(self) -> Tensor:
        """Root of the summed squares of the membrane's answer to one input of 1, without threshold; infinite if it does
        not leak."""
        after = self.synapse == "after_decay"
        return response(1.0 / self.tau, 1.0 / self.tau_synapse, after=after) / self.membrane_gain

    def neuron(self) -> CubaLIF:
        """A neuron of isofire's with these numbers."""
        return CubaLIF(
            self.tau.clamp(max=_NO_LEAK).float(), self.tau_synapse.float(), synapse=self.synapse,
            decay_input=self.decay_input, v_threshold=(self.threshold + self.rest).float(),
            v_reset=None if self.soft else self.rest, several=self.several,
            v_floor=None if self.floor is None else self.floor + self.rest,
            v_subtract=None if self.subtract is None else self.subtract.float(),
        )  # fmt: skip

    def extremes(self, x: Tensor, back: Tensor | None = None) -> tuple[Tensor, Tensor, int]:
        """Largest magnitude, over steps and images, of the charged membrane from rest and of the current it is charged
        by, one a neuron [...], and most spikes in a step, for inputs [T, N, ...]. `back`: recurrent weights [n, n]."""
        made = self.neuron()
        d, tensors = made.dynamics, tuple(value.double() for value in made.tensors())
        x = x.double()
        state, most_v, most_i, most = d.initial(x[0]), torch.zeros_like(x[0, 0]), torch.zeros_like(x[0, 0]), 0.0
        fired = torch.zeros_like(x[0])
        for step in x:
            step = step if back is None else step + fired @ back.T
            charged = d.charge(step, state, tensors)
            most_v = most_v.maximum((charged[0] - self.rest).abs().amax(0))
            most_i = most_i.maximum(charged[1].abs().amax(0)).maximum(step.abs().amax(0))
            fired = d.fire(charged, tensors)
            most = max(most, float(fired.max()))
            state = d.reset(charged, fired, tensors)
        return most_v, most_i, int(most)


def _number(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)
