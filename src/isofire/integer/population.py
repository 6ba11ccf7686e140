"""A layer of neurons in integers: its numbers, and one step of its state."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from isofire.errors import SpecError
from isofire.integer.arithmetic import DecayRule, fit
from isofire.integer.hardware import NeuronRules

Deliver = Callable[[Tensor, str], Tensor]
"""Adds to a current [N, ...] what has arrived in this step; the name is for errors."""


class State(NamedTuple):
    """Membranes and synaptic currents [N, ...], int64; without synapses the current is what arrived in the step."""

    v: Tensor
    i: Tensor


class StateTable(NamedTuple):
    """A membrane quantizer: int64 edges [G, L-1] and levels [G, L], one row for all channels or one a channel.

    A state belongs to bin k if k edges lie strictly below it, as in `isofire.quantizers.table`.
    """

    placement: Literal["pre_fire", "post_reset"]
    edges: Tensor
    levels: Tensor

    def apply(self, v: Tensor) -> Tensor:
        """States [N, C, ...], quantized."""
        if self.edges.shape[0] == 1:
            return self.levels[0][torch.searchsorted(self.edges[0], v.contiguous())]
        rows = v.transpose(0, 1).flatten(1).contiguous()
        bins = torch.searchsorted(self.edges, rows)
        return self.levels.gather(1, bins).unflatten(1, (v.shape[0], *v.shape[2:])).transpose(0, 1)


class Population(nn.Module):
    """Neurons that share their rules; every number is a whole one, kept as int64.

    Its `forward` hands spikes [T, N, ...] on as they are: the network calls it once a pass, so that recorders and hooks
    find integer neurons as they find any others.

    Parameters
    ----------
    rules
        What the registers do.
    shape
        Neurons of one image, such as (C, H, W).
    threshold, bias, decay, synapse_decay, floor
        Numbers, or tensors that broadcast to `shape`. A decay is what `DecayRule.apply` takes as d.
    reset
        "subtract" the threshold for every spike, or to "zero".
    subtract
        What a spike subtracts, if not the threshold; a number or tensor as they are.
    output
        Whether it is the last layer, whose spikes a step may have another limit.
    scale
        What one unit of the membrane is in the float network, broadcast to `shape`; for reading alone.
    table
        A membrane quantizer.

    Raises
    ------
    SpecError
        If a number is out of the rules' range.
    """

    threshold: Tensor
    bias: Tensor
    decay: Tensor
    synapse_decay: Tensor

    def __init__(
        self,
        rules: NeuronRules,
        shape: tuple[int, ...],
        *,
        threshold: Any,
        reset: Literal["subtract", "zero"],
        bias: Any = 0,
        decay: Any = 0,
        synapse_decay: Any = 0,
        floor: Any = None,
        subtract: Any = None,
        output: bool = False,
        scale: Tensor | None = None,
        table: StateTable | None = None,
    ) -> None:
        super().__init__()
        self.rules, self.shape, self.reset_to, self.output = rules, tuple(shape), reset, output
        self.scale = scale
        self.table = table
        for name, value in (
            ("threshold", threshold),
            ("bias", bias),
            ("decay", decay),
            ("synapse_decay", synapse_decay),
        ):
            self.register_buffer(name, _whole(name, value, self.shape))
        self.floor = None if floor is None else _whole("floor", floor, self.shape)
        self.subtract = None if subtract is None else _whole("subtract", subtract, self.shape)
        self._check()

    @property
    def size(self) -> int:
        """Neurons."""
        return math.prod(self.shape)

    @property
    def most_spikes(self) -> int | None:
        """Spikes a step at most."""
        return self.rules.output_spikes if self.output else self.rules.spikes

    def initial(self, images: int) -> State:
        """The state before the first step."""
        zeros = torch.zeros((images, *self.shape), dtype=torch.int64)
        return State(zeros, zeros.clone())

    def step(self, state: State, deliver: Deliver, name: str = "population") -> tuple[State, Tensor]:
        """The state after a step, and the spikes [N, ...] that it gives (int64, 0 or more).

        The order is: deliver, decay, integrate with the bias, (quantize,) fire, reset, (floor, quantize).
        """
        rules = self.rules
        i = self._current(state.i, deliver, name)
        v = self._integrate(state.v, state.i if rules.synapse == "late" else i, name)
        if self.table is not None and self.table.placement == "pre_fire":
            v = self.table.apply(v)
        v, spikes = self.fired(v)
        if self.table is not None and self.table.placement == "post_reset":
            v = self.table.apply(v)
        return State(fit(v, rules.state_bits, rules.overflow, name), i), spikes

    def fired(self, v: Tensor) -> tuple[Tensor, Tensor]:
        """What charged membranes [N, ...] become by firing, reset and floor, and the spikes."""
        spikes = self._fire(v)
        subtracted = self.threshold if self.subtract is None else self.subtract
        v = v - spikes * subtracted if self.reset_to == "subtract" else v.masked_fill(spikes > 0, 0)
        return (v if self.floor is None else v.maximum(self.floor)), spikes

    def _current(self, i: Tensor, deliver: Deliver, name: str) -> Tensor:
        rules = self.rules
        if rules.synapse == "none":
            return deliver(torch.zeros_like(i), name)
        assert rules.synapse_decay is not None
        if rules.bias_into == "current":
            return self._biased(i, deliver, rules.synapse_decay, name)
        if rules.synapse == "after":
            return rules.synapse_decay.apply(deliver(i, name), self.synapse_decay)
        return deliver(rules.synapse_decay.apply(i, self.synapse_decay), name)

    def _biased(self, i: Tensor, deliver: Deliver, decay: DecayRule, name: str) -> Tensor:
        """The current where biases are inputs too."""
        rules = self.rules
        if rules.synapse == "after":
            reached = fit(deliver(i, name) + self.bias, rules.state_bits, rules.current_overflow, name)
            return decay.apply(reached, self.synapse_decay)
        reached = deliver(decay.apply(i, self.synapse_decay), name) + self.bias
        return fit(reached, rules.state_bits, rules.current_overflow, name)

    def _integrate(self, v: Tensor, i: Tensor, name: str) -> Tensor:
        rules = self.rules
        kept = v if rules.decay is None else rules.decay.apply(v, self.decay)
        if rules.increment == "whole":
            bias = self.bias if rules.bias_into == "membrane" else 0
            return fit(kept + i + bias, rules.state_bits, rules.overflow, name)
        change = fit(kept - v + i, rules.state_bits, rules.overflow, name)
        change = fit(change + self.bias, rules.state_bits, rules.overflow, name)
        return fit(v + change, rules.state_bits, rules.overflow, name)

    def _fire(self, v: Tensor) -> Tensor:
        threshold = self.threshold << self.rules.threshold_shift
        fires = v >= threshold if self.rules.compare == ">=" else v > threshold
        if self.most_spikes == 1:
            return fires.to(torch.int64)
        spikes = torch.div(v, threshold, rounding_mode="floor") * fires
        return spikes.clamp(max=self.most_spikes) if self.most_spikes is not None else spikes

    def forward(self, spikes: Tensor) -> Tensor:
        """The spikes as they are, for those who listen."""
        return spikes

    def extra_repr(self) -> str:
        table = "" if self.table is None else f", {self.table.levels.shape[1]} levels at {self.table.placement}"
        return f"shape={self.shape}, {self.rules.state_bits}-bit states, reset {self.reset_to}{table}"

    def _check(self) -> None:
        rules = self.rules
        limit = 1 << (rules.threshold_bits - 1)
        if bool((self.threshold >= limit).any()) or bool((self.threshold < 1).any()):
            low, high = int(self.threshold.amin()), int(self.threshold.amax())
            raise SpecError(f"a threshold must lie in 1..{limit - 1} ({rules.threshold_bits} bits), got {low}..{high}")
        if self.reset_to not in rules.reset:
            raise SpecError(f"reset must be one of {', '.join(rules.reset)}, got {self.reset_to!r}")
        if self.subtract is not None and (self.reset_to != "subtract" or self.most_spikes != 1):
            raise SpecError("subtract is of neurons that fire one spike a step and subtract")
        if self.floor is not None and not rules.floor:
            raise SpecError("these rules know no lower bound of membranes; leave floor out")
        for name, rule, d in (
            ("decay", rules.decay, self.decay),
            ("synapse_decay", rules.synapse_decay, self.synapse_decay),
        ):
            most = 0 if rule is None else rule.largest
            if bool((d < 0).any()) or bool((d > most).any()):
                raise SpecError(f"{name} must lie in 0..{most}, got {int(d.amin())}..{int(d.amax())}")


def _whole(name: str, value: Any, shape: tuple[int, ...]) -> Tensor:
    tensor = torch.as_tensor(value)
    if tensor.is_floating_point() or tensor.dtype == torch.bool:
        raise SpecError(f"{name} must be whole numbers, got {tensor.dtype}")
    try:
        torch.broadcast_shapes(tensor.shape, shape)
    except RuntimeError as error:
        raise SpecError(f"{name} of shape {list(tensor.shape)} does not fit neurons {list(shape)}") from error
    return tensor.to(torch.int64)
