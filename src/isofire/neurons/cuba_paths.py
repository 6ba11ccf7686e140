"""`CubaLIF` in the compiled kernels: one autograd node over all T steps, states recomputed in backward."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from isofire.neurons import native
from isofire.neurons.fast_path import Call, FastPath, in_a_graph
from isofire.neurons.fused import fill_state
from isofire.neurons.paths import native_refuses
from isofire.neurons.state_quantizer import StateQuantizer

if TYPE_CHECKING:
    from isofire.neurons.base import Neuron
    from isofire.neurons.kinds.cuba_lif import CubaDynamics

_SYNAPSES = ("before_decay", "after_decay", "before_input")


class _CubaFire(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, d: CubaDynamics, state: StateQuantizer | None, counts: Tensor | None, *tensors: Tensor
    ) -> Tensor:
        x = native.dense(x, 2)
        ctx.save_for_backward(x, *tensors)
        ctx.dynamics, ctx.state = d, state
        problem, layout, kept = _problem(x, d, state, tensors)
        spikes = native.empty(x.shape, layout, 2)
        problem.spikes = native.floats(spikes)
        if counts is not None:
            problem.counts = native.bytes_(counts)
        native.run("cuba_forward", problem)
        del kept
        return spikes

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, *tensors = ctx.saved_tensors
        problem, layout, kept = _problem(x, ctx.dynamics, ctx.state, tuple(tensors))
        incoming = native.dense(grads[0].float(), 2, layout)
        grad_in = native.empty(x.shape, layout, 2)
        problem.grad_spikes, problem.grad_in = native.floats(incoming), native.floats(grad_in)
        native.run("cuba_backward", problem)
        del kept
        return grad_in, None, None, None, *(None for _ in tensors)


def _problem(
    x: Tensor, d: CubaDynamics, state: StateQuantizer | None, tensors: tuple[Tensor, ...]
) -> tuple[native.Problem, native.MemoryLayout, list[Tensor]]:
    """The kernel's view of a call, with the tensors that it points to (keep them until the kernel has run)."""
    layout = native.MemoryLayout.of(x, 2)
    images = layout.images // x.shape[0]
    layout = native.MemoryLayout(images, layout.channels, layout.plane, layout.channels_last)
    flat = state is None or state.groups == 1
    seen = native.MemoryLayout(images, 1, layout.channels * layout.plane, False) if flat else layout
    p = native.problem(d, seen, x.shape[0])
    p.synapse, p.decay_input = _SYNAPSES.index(d.synapse), d.decay_input
    kept = [x, *(native.dense(value.float().expand(x.shape[2:])[None], 1, layout) for value in tensors)]
    p.x = native.floats(x)
    p.tau_mem, p.tau_syn, p.thresholds = (native.floats(value) for value in kept[1:])
    if state is not None:
        kept += fill_state(p, state, seen.channels)
    return p, layout, kept


class CubaNativePath(FastPath):
    """The compiled kernels; they count spikes."""

    name = "native"

    def refuses(self, neuron: Neuron, call: Call) -> str | None:
        if cast("CubaDynamics", neuron.dynamics).subtracts:
            return "knows no v_subtract; take backend 'auto' or 'torch'"
        if in_a_graph():
            return "does not know these neurons in a compiled graph; use 'auto'"
        return native_refuses(neuron, call)

    def run(self, neuron: Neuron, call: Call) -> Tensor:
        x = native.dense(call.x, 2)
        counts = neuron.count_buffer(x[0]) if neuron.counting and call.steps <= native.MOST_COUNTED else None
        d = cast("CubaDynamics", neuron.dynamics)
        spikes: Tensor = _CubaFire.apply(x, d, call.state, counts, *neuron.tensors())  # type: ignore[assignment]
        neuron.spike_counts = counts
        return spikes


CUBA_NATIVE = CubaNativePath()
