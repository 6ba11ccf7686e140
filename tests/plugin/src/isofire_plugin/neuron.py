"""A neuron: LIF whose threshold rises with every spike of its own (Bellec et al. 2018, LSNN)."""

from dataclasses import dataclass
from typing import Unpack

import torch
from torch import Tensor

from isofire.neurons import Common, Dynamics, Neuron, State


@dataclass(frozen=True, kw_only=True)
class AdaptiveDynamics(Dynamics):
    """Threshold v_threshold + rise * a, where `a` gains 1 a spike and keeps the share `memory` of itself a step."""

    tau: float = 2.0
    rise: float = 0.3
    memory: float = 0.8

    def initial(self, x: Tensor) -> State:
        return (*super().initial(x), torch.zeros_like(x))

    def charge(self, x: Tensor, state: State, tensors: State = ()) -> State:
        v, a = state
        return v + (x - (v - self.rest)) / self.tau, a

    def threshold(self, charged: State, tensors: State = ()) -> Tensor:
        return self.v_threshold + self.rise * charged[1]

    def reset(self, charged: State, s: Tensor, tensors: State = ()) -> State:
        v, a = super().reset(charged, s)
        return v, self.memory * a + s


class AdaptiveLIF(Neuron):
    """LIF with an adaptive threshold; parameters as in `AdaptiveDynamics`."""

    def __init__(self, tau: float = 2.0, *, rise: float = 0.3, memory: float = 0.8, **common: Unpack[Common]) -> None:
        super().__init__(AdaptiveDynamics(tau=tau, rise=rise, memory=memory, **common))
