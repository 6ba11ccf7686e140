"""A torch path for neurons of any kind: the reference's steps, in memory only while a layer's gradient is taken."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from isofire.neurons import reference
from isofire.neurons.dynamics import Dynamics
from isofire.neurons.fast_path import Call, FastPath
from isofire.neurons.state_quantizer import StateQuantizer

if TYPE_CHECKING:
    from isofire.neurons.base import Neuron


class _Recomputed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, d: Dynamics, state: StateQuantizer | None, *tensors: Tensor) -> Tensor:
        ctx.save_for_backward(x, *tensors)
        ctx.dynamics, ctx.state = d, state
        return _run(d, x, state, tensors)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        wanted = [need for i, need in enumerate(ctx.needs_input_grad) if i not in (1, 2)]
        leaves = [value.detach().requires_grad_(need) for value, need in zip(ctx.saved_tensors, wanted, strict=True)]
        with torch.enable_grad():
            spikes = _run(ctx.dynamics, leaves[0], ctx.state, tuple(leaves[1:]))
        asked = [leaf for leaf in leaves if leaf.requires_grad]
        if not spikes.requires_grad:
            # what was asked for has no way to a spike, as an input that acts a step later has at T = 1
            zeros = (torch.zeros_like(leaf) if leaf.requires_grad else None for leaf in leaves)
            return next(zeros), None, None, *zeros
        found = iter(torch.autograd.grad(spikes, asked, grads[0], allow_unused=True))
        x, *tensors = (_or_zero(next(found), leaf) if leaf.requires_grad else None for leaf in leaves)
        return x, None, None, *tensors


def _or_zero(gradient: Tensor | None, leaf: Tensor) -> Tensor:
    return torch.zeros_like(leaf) if gradient is None else gradient


def _run(d: Dynamics, x: Tensor, state: StateQuantizer | None, tensors: tuple[Tensor, ...]) -> Tensor:
    return reference.run(d, x, tensors, None if state is None else FrozenMembrane(state))


class FrozenMembrane:
    """A frozen quantizer of the membrane as `reference.run` calls it, with its straight-through gradient."""

    def __init__(self, state: StateQuantizer) -> None:
        self.state, self.placement = state, state.placement

    def __call__(self, v: Tensor) -> Tensor:
        return _Straight.apply(v, self.state)  # type: ignore[return-value]


class _Straight(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, v: Tensor, state: StateQuantizer) -> Tensor:
        ctx.save_for_backward(v)
        ctx.state = state
        return state.quantize(v)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return ctx.state.mask(ctx.saved_tensors[0], grads[0]), None


class RecomputePath(FastPath):
    """One autograd node that saves its inputs alone; on any device, for any `Dynamics`."""

    name = "torch"

    def refuses(self, neuron: Neuron, call: Call) -> str | None:
        return None

    def run(self, neuron: Neuron, call: Call) -> Tensor:
        return _Recomputed.apply(call.x, neuron.dynamics, call.state, *neuron.tensors())  # type: ignore[return-value]


RECOMPUTE = RecomputePath()
