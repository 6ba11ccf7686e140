"""The fast paths of neurons whose only variable is their membrane."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor

from isofire.neurons import fused, gpu, native, traced
from isofire.neurons.fast_path import Call, FastPath, in_a_graph
from isofire.neurons.norm_fusion import can_fuse, normalise
from isofire.neurons.single_state import MembraneDynamics
from isofire.neurons.state_quantizer import NATIVE_BITS

if TYPE_CHECKING:
    from isofire.neurons.base import Neuron


def _dynamics(neuron: Neuron) -> MembraneDynamics:
    return cast(MembraneDynamics, neuron.dynamics)


def _decay(neuron: Neuron) -> Tensor | None:
    """The learned 1/tau, if the neuron has one."""
    return next(iter(neuron.tensors()), None)


def _refuses(neuron: Neuron) -> str | None:
    return None if neuron.dynamics.is_plain else "knows neither v_floor nor several spikes a step; use 'auto'"


def native_refuses(neuron: Neuron, call: Call) -> str | None:
    """Why no compiled kernel can run the call; None if one can."""
    if (reason := _refuses(neuron)) is not None:
        return reason
    if not native.usable(call.x):
        return (
            f"needs the compiled kernels and float32 on a CPU, got {call.x.dtype} on {call.x.device}"
            f"{'' if native.library() else ' and no kernels'}; use 'auto'"
        )
    return _unknown(neuron, call)


def _unknown(neuron: Neuron, call: Call) -> str | None:
    """What of the call kernels do not know."""
    if neuron.dynamics.surrogate.code is None:
        return f"does not know the surrogate {type(neuron.dynamics.surrogate).__name__}; use 'auto'"
    if call.state is not None and not call.state.is_native:
        most = 1 << NATIVE_BITS
        return f"takes membrane quantizers of at most {most} levels that lie on no uniform grid; use 'auto'"
    return None


class TorchPath(FastPath):
    """One autograd node of torch operations, on any device."""

    name = "torch"

    def refuses(self, neuron: Neuron, call: Call) -> str | None:
        return _refuses(neuron)

    def run(self, neuron: Neuron, call: Call) -> Tensor:
        return fused.run_torch(call.x, _decay(neuron), fused.Plan(_dynamics(neuron), call.steps, state=call.state))


class KernelPath(FastPath):
    """Kernels; they take a batch norm and a static input with them, and count spikes.

    `missing` says why they do not run a call; None if they do.
    """

    is_operator = True

    def __init__(self, name: str, kernels: fused.Kernels, missing: Callable[[Neuron, Call], str | None]) -> None:
        self.name, self.kernels, self.missing = name, kernels, missing

    def refuses(self, neuron: Neuron, call: Call) -> str | None:
        if in_a_graph() and not traced.knows(neuron.dynamics):
            return f"does not know {type(neuron.dynamics).__name__} in a compiled graph; use 'auto'"
        return self.missing(neuron, call)

    def takes(self, call: Call) -> bool:
        return call.norm is None or can_fuse(call.norm, call.x.ndim - (not call.repeat))

    def run(self, neuron: Neuron, call: Call) -> Tensor:
        if in_a_graph():
            return traced.run(_dynamics(neuron), _decay(neuron), call)
        x, kernels = native.dense(call.x, 1 if call.repeat else 2), self.kernels
        gamma, beta, affine = None, None, None
        if call.norm is not None:
            affine = normalise(call.norm, x, call.repeat, kernels)
            gamma, beta = call.norm.weight, call.norm.bias
        counts = None
        if neuron.counting and call.steps <= native.MOST_COUNTED:
            counts = neuron.count_buffer(x if call.repeat else x[0])
        plan = fused.Plan(_dynamics(neuron), call.steps, call.repeat, call.state, affine, counts)
        spikes = fused.run_kernels(x, gamma, beta, _decay(neuron), plan, kernels)
        neuron.spike_counts = counts
        return spikes


def _triton_refuses(neuron: Neuron, call: Call) -> str | None:
    """Why no Triton kernel can run the call; None if one can, where forced also on a CPU, by Triton's interpreter."""
    if (reason := _refuses(neuron) or _unknown(neuron, call)) is not None:
        return reason
    x = call.x
    if x.dtype != torch.float32 or not x.numel():
        return f"needs float32 and at least one neuron, got {x.dtype} of shape {tuple(x.shape)}; use 'auto'"
    if torch.is_grad_enabled() and call.steps > gpu.MOST_STEPS:
        return f"takes gradients through at most {gpu.MOST_STEPS} steps, got {call.steps}; use 'auto'"
    if x.device.type == "cpu" and neuron.backend == "auto":
        return "is for CUDA"
    return gpu.missing(x.device.type, x.device.index)


NATIVE = KernelPath("native", fused.NATIVE_KERNELS, native_refuses)
"""The compiled kernels, for the CPU."""
TRITON = KernelPath("triton", gpu.TRITON_KERNELS, _triton_refuses)
"""Triton kernels, for CUDA."""
TORCH = TorchPath()
