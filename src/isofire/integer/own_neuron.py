"""A layer of neurons in integers of its own: decays as fractions, membranes counted so that inputs are whole."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from isofire.errors import ModelError
from isofire.integer.arithmetic import WIDEST, DecayRule
from isofire.integer.hardware import NeuronRules
from isofire.integer.neuron_form import NeuronForm
from isofire.neurons import Neuron

_FRACTION = 20
"""Binary digits of a decay that is no fraction of a smaller power of two."""
_SYNAPSES: dict[str, Literal["before", "after", "late"]] = {
    "before_decay": "before", "after_decay": "after", "before_input": "late",
}  # fmt: skip


@dataclass(frozen=True)
class OwnNeuron:
    """How a layer's neurons are counted; tensors are one number, or one a channel [out].

    Parameters
    ----------
    gain
        A membrane counts `gain` times as much as in the float network, from `rest`: tau times where its input decays.
    threshold, subtract
        Counted so; None: a spike subtracts the threshold.
    above
        Whether a membrane that equals the threshold does not fire.
    decay, synapse_decay
        None: the membrane does not leak, there is no current.
    lost, synapse_lost
        Of 2^bits parts, how many are lost a step.
    memory
        As many steps' inputs add up in a membrane at the most.
    fades
        Whether it is so for any number of steps.
    """

    gain: Tensor
    threshold: Tensor
    subtract: Tensor | None
    above: bool
    rest: float
    floor: float | None
    soft: bool
    several: bool
    decay: DecayRule | None
    lost: Tensor
    synapse: Literal["none", "before", "after", "late"]
    synapse_decay: DecayRule | None
    synapse_lost: Tensor
    memory: float
    fades: bool

    @classmethod
    def of(cls, name: str, neuron: Neuron, shape: tuple[int, ...], steps: int, notes: list[str]) -> OwnNeuron:
        """The numbers of a layer of `shape` that is run for so many steps; notes get what is not exact.

        Raises
        ------
        ModelError
            If neurons of one channel have constants of their own.
        """
        form = NeuronForm.of(name, neuron)
        tau, tau_synapse, threshold = (
            _by_channel(name, values, shape) for values in (form.tau, form.tau_synapse, form.threshold)
        )
        decay, lost = _fraction("a decay", 1.0 / tau, notes)
        synapse_decay, synapse_lost, longest = None, torch.zeros((), dtype=torch.int64), 1.0
        if form.has_synapse:
            # a current is there although it may keep nothing
            found, synapse_lost = _fraction("a current's decay", 1.0 / tau_synapse, notes)
            synapse_decay = found or DecayRule(kind="fraction", bits=1, rounding="nearest")
            longest = min(steps, float(tau_synapse.max()))
        slowest = max(float(tau.max()), float(tau_synapse.max()) if form.has_synapse else 1.0)
        gain = tau if form.decay_input else torch.ones_like(tau)
        subtract = None if form.subtract is None else gain * _by_channel(name, form.subtract, shape)
        return cls(
            gain, gain * threshold, subtract, form.above, form.rest, form.floor, form.soft, form.several, decay, lost,
            _SYNAPSES[form.synapse] if form.has_synapse else "none", synapse_decay, synapse_lost,
            longest * min(steps, float(tau.max())), slowest <= steps,
        )  # fmt: skip

    @property
    def bits(self) -> int:
        """Binary digits of the finest decay."""
        return max(1, *(rule.bits for rule in (self.decay, self.synapse_decay) if rule is not None), 1)

    def numbers(self, neuron: Neuron, bias: Tensor) -> Tensor:
        """What must keep its ratios where it lies on one grid, [k, out]: threshold, what is subtracted, floor, biases.

        A level at which the neuron fires is the threshold, once more.
        """
        found = [self.threshold]
        if self.subtract is not None:
            found.append(self.subtract)
        if self.floor is not None:
            found.append(self.gain * self.floor)
        if neuron.membrane is not None and not self.above:
            levels = self.gain.view(-1, 1) * (neuron.membrane.quantizer.levels().double().cpu() - self.rest)
            meant = (levels - self.threshold.view(-1, 1)).abs() <= self.threshold.view(-1, 1) * 2.0**-40
            found.append(self.threshold * meant.any(1))
        return torch.stack([part.expand_as(bias) for part in (*found, bias)])

    def rules(self, bits: int) -> NeuronRules:
        """For states of so many bits."""
        most = None if self.several else 1
        return NeuronRules(
            synapse=self.synapse, synapse_decay=self.synapse_decay, decay=self.decay, deliver="sum", increment="whole",
            state_bits=bits, overflow="refuse", current_overflow="refuse", compare=">=", threshold_bits=WIDEST,
            threshold_shift=0, reset=("subtract", "zero"), spikes=most, output_spikes=most, input_spikes=None,
            floor=True, bias_into="membrane" if self.synapse == "none" else "current",
        )  # fmt: skip


def _fraction(what: str, rate: Tensor, notes: list[str]) -> tuple[DecayRule | None, Tensor]:
    """Shares that are lost a step as parts of a power of two, the smallest that holds them all; None: nothing is."""
    if not bool(rate.any()):
        return None, torch.zeros((), dtype=torch.int64)
    whole = (b for b in range(1, 13) if bool(((rate * 2**b - (rate * 2**b).round()).abs() < 1e-9).all()))
    bits = next(whole, _FRACTION)
    lost = (rate * 2**bits).round().to(torch.int64)
    apart = (lost / 2**bits - rate).abs()
    worst = int(apart.argmax())
    if float(apart[worst]) > 1e-12:
        notes.append(
            f"{what} with time constant {1.0 / float(rate[worst]):.6g} is no binary fraction: {int(lost[worst]):,} "
            f"of 2^{bits} parts are lost a step, which is off by {float(apart[worst] / rate[worst]):.0e} of it"
        )
    return DecayRule(kind="fraction", bits=bits, rounding="nearest"), lost


def _by_channel(name: str, values: Tensor, shape: tuple[int, ...]) -> Tensor:
    """[1], or [out] where channels differ."""
    if values.numel() == 1:
        return values.reshape(1)
    by_channel = values.expand(shape).reshape(shape[0], -1)
    if bool((by_channel != by_channel[:, :1]).any()):
        raise ModelError(f"neurons of one channel of {name!r} have constants of their own; give each channel one")
    return by_channel[:, 0]
