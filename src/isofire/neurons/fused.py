"""The fast paths: one autograd node over all T steps, the membrane recomputed in backward instead of stored.

`run_kernels` uses kernels, those compiled for the CPU or others like them, and can take a batch norm with it;
`run_torch` works on any device. Both equal `isofire.neurons.reference` in spikes, and in gradients up to rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from isofire.neurons import native
from isofire.neurons.single_state import MembraneDynamics
from isofire.neurons.state_quantizer import AffineState, StateQuantizer, TableState


@dataclass(frozen=True)
class Norm:
    """A batch norm as an affine map per channel; in training `mean` and `invstd` are the batch's own."""

    mean: Tensor
    invstd: Tensor
    batch_statistics: bool


@dataclass(frozen=True)
class Plan:
    """Constants of one call."""

    dynamics: MembraneDynamics
    steps: int
    repeat: bool = False
    state: StateQuantizer | None = None
    norm: Norm | None = None
    counts: Tensor | None = None
    """If given, receives the spikes of each neuron summed over T <= 255: uint8 [N, ...], in the input's memory
    order; kernels only."""


class Kernels(NamedTuple):
    """What runs a `Plan` on dense float32 inputs, and the sums of a batch norm.

    forward, backward
        As `native_forward` and `native_backward`.
    moments
        As `native.moments`.
    """

    forward: Callable[..., Tensor]
    backward: Callable[..., tuple[Tensor, Tensor | None, Tensor | None, Tensor | None]]
    moments: Callable[[Tensor, native.MemoryLayout], tuple[Tensor, Tensor]]


def run_torch(x: Tensor, decay: Tensor | None, plan: Plan) -> Tensor:
    """Spikes [T, N, ...] for inputs [T, N, ...] on any device."""
    return _TorchFire.apply(x, decay, plan)  # type: ignore[return-value]


def run_kernels(
    x: Tensor, gamma: Tensor | None, beta: Tensor | None, decay: Tensor | None, plan: Plan, kernels: Kernels
) -> Tensor:
    """Spikes [T, N, ...] for float32 inputs [T, N, ...], or [N, ...] with `plan.repeat` (the same at every step).

    With `plan.norm`, inputs are normalised first: x * (gamma * invstd) + (beta - mean * gamma * invstd).
    """
    return _KernelFire.apply(x, gamma, beta, decay, plan, kernels)  # type: ignore[return-value]


class _TorchFire(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, decay: Tensor | None, plan: Plan) -> Tensor:
        ctx.save_for_backward(x, decay)
        ctx.plan = plan
        spikes = torch.empty_like(x)
        v = torch.full_like(x[0], plan.dynamics.rest)
        for t in range(plan.steps):
            _, s, v, _ = _step(plan, x[t], v, decay)
            spikes[t] = s
        return spikes

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor | None, None]:
        x, decay = ctx.saved_tensors
        plan: Plan = ctx.plan
        d, state = plan.dynamics, plan.state
        befores, charged, raws = [], [], []
        v = torch.full_like(x[0], d.rest)
        for t in range(plan.steps):
            befores.append(v)
            h, _, v, raw = _step(plan, x[t], v, decay)
            charged.append(h)
            raws.append(raw)
        grad_x, g = torch.empty_like(x), torch.zeros_like(x[0])
        grad_decay = None if decay is None else torch.zeros((), dtype=torch.float64, device=x.device)
        for t in reversed(range(plan.steps)):
            h, gs = charged[t], grads[0][t]
            if state is not None and state.placement == "post_reset":
                g = state.mask(raws[t], g)
            g = _through_reset(d, h, gs, g)
            if state is not None and state.placement == "pre_fire":
                g = state.mask(raws[t], g)
            if grad_decay is not None:
                grad_decay += (g * d.drive(x[t], befores[t])).sum(dtype=torch.float64)
            grad_x[t], g = d.through_charge(g, decay)
        return grad_x, None if grad_decay is None else grad_decay.to(x.dtype), None


def _step(plan: Plan, x: Tensor, v: Tensor, decay: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """One step: membrane at the threshold, spikes, stored membrane, and the value that entered the quantizer."""
    d, state, raw = plan.dynamics, plan.state, None
    (h,) = d.charge(x, (v,), () if decay is None else (decay,))
    if state is not None and state.placement == "pre_fire":
        raw, h = h, state.quantize(h)
    s = d.fire((h,))
    (v,) = d.reset((h,), s)
    if state is not None and state.placement == "post_reset":
        raw, v = v, state.quantize(v)
    return h, s, v, raw


def _through_reset(d: MembraneDynamics, h: Tensor, gs: Tensor, g: Tensor) -> Tensor:
    """Gradient at the membrane before fire, from that at the spikes (gs) and at the membrane after reset (g)."""
    slope = d.surrogate.slope(h - d.v_threshold)
    if d.v_reset is None:
        return g + (gs if d.detach_reset else gs - g * d.v_threshold) * slope
    kept = torch.where(h >= d.v_threshold, torch.zeros_like(g), g)
    return kept + (gs if d.detach_reset else gs + g * (d.v_reset - h)) * slope


class _KernelFire(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, gamma: Tensor | None, beta: Tensor | None, decay: Tensor | None, plan: Plan,
        kernels: Kernels,
    ) -> Tensor:  # fmt: skip
        x = native.dense(x, 1 if plan.repeat else 2)
        ctx.save_for_backward(x, gamma, beta, decay)
        ctx.plan, ctx.kernels = plan, kernels
        return kernels.forward(x, gamma, beta, decay, plan)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, gamma, beta, decay = ctx.saved_tensors
        return *ctx.kernels.backward(grads[0], x, gamma, beta, decay, ctx.plan), None, None


def native_forward(x: Tensor, gamma: Tensor | None, beta: Tensor | None, decay: Tensor | None, plan: Plan) -> Tensor:
    """Spikes by the compiled kernels, for an `x` that `native.dense` has made."""
    problem, layout, kept = _problem(plan, x, gamma, beta, decay)
    spikes = native.empty((plan.steps, *x.shape) if plan.repeat else x.shape, layout, 2)
    problem.spikes = native.floats(spikes)
    if plan.counts is not None:
        problem.counts = native.bytes_(plan.counts)
    native.run("forward", problem)
    del kept
    return spikes


def native_backward(
    grad: Tensor, x: Tensor, gamma: Tensor | None, beta: Tensor | None, decay: Tensor | None, plan: Plan
) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor | None]:
    """Gradients at `x`, gamma, beta and the decay, from that at the spikes."""
    problem, layout, kept = _problem(plan, x, gamma, beta, decay)
    incoming = native.dense(grad.float(), 2, layout)
    grad_in = native.empty(x.shape, layout, 1 if plan.repeat else 2)
    tasks = native.run("tasks", problem)
    sums = torch.zeros(tasks, 2, layout.channels, dtype=torch.float64) if plan.norm is not None else None
    decay_sums = torch.zeros(tasks, dtype=torch.float64) if decay is not None else None
    problem.grad_spikes, problem.grad_in = native.floats(incoming), native.floats(grad_in)
    problem.sums, problem.decay_sum = native.doubles(sums), native.doubles(decay_sums)
    native.run("backward", problem)
    del kept
    return gradients(plan, grad_in, x, gamma, beta, sums, decay_sums, native.combine_)


NATIVE_KERNELS = Kernels(native_forward, native_backward, native.moments)


def layouts(x: Tensor, plan: Plan) -> tuple[native.MemoryLayout, native.MemoryLayout]:
    """Layout of one step's images of a dense `x`, and the simplest one in which a kernel may see it: one channel where
    all channels are treated alike."""
    layout = native.MemoryLayout.of(x, 1 if plan.repeat else 2)
    images = layout.images if plan.repeat else layout.images // plan.steps
    layout = native.MemoryLayout(images, layout.channels, layout.plane, layout.channels_last)
    if plan.norm is None and (plan.state is None or plan.state.groups == 1):
        return layout, native.MemoryLayout(images, 1, layout.channels * layout.plane, False)
    return layout, layout


def _problem(
    plan: Plan, x: Tensor, gamma: Tensor | None, beta: Tensor | None, decay: Tensor | None
) -> tuple[native.Problem, native.MemoryLayout, list[Tensor]]:
    """The kernel's view of a call, with the tensors that it points to (keep them until the kernel has run)."""
    layout, seen = layouts(x, plan)
    p = native.problem(plan.dynamics, seen, plan.steps)
    p.repeat, p.charge = plan.repeat, plan.dynamics.kernel
    p.tau = plan.dynamics.kernel_tau if decay is None else float(decay)
    kept = [x]
    p.x = native.floats(x)
    if plan.norm is not None:
        scale, shift = affine_of(plan.norm, gamma, beta)
        mean = plan.norm.mean.float().contiguous()
        p.scale, p.shift, p.mean = native.floats(scale), native.floats(shift), native.floats(mean)
        kept += [scale, shift, mean]
    if plan.state is not None:
        kept += fill_state(p, plan.state, seen.channels)
    return p, layout, kept


def fill_state(p: native.Problem, state: StateQuantizer, channels: int) -> list[Tensor]:
    """Describe the membrane quantizer to the kernel; returns the tensors that it points to."""
    kept = []

    def rows(values: Tensor) -> Any:
        kept.append(values.float().expand(channels).contiguous())
        return native.floats(kept[-1])

    p.placement = 1 if state.placement == "pre_fire" else 2
    if state.gradient_range is not None:
        p.clipped, p.lo, p.hi = True, *(rows(bound) for bound in state.gradient_range)
    match state:
        case AffineState(affine=affine):
            p.origin, p.step, p.k_min, p.k_max = rows(affine.origin), rows(affine.step), affine.k_min, affine.k_max
        case TableState():
            table = state.padded()
            kept += table
            p.edges, p.levels = (native.floats(part) for part in table)
            p.level_bits, p.table_rows = state.bits, state.groups
    return kept


def affine_of(norm: Norm, gamma: Tensor | None, beta: Tensor | None) -> tuple[Tensor, Tensor]:
    """Float32 scale and shift [C] of a batch norm: y = x * scale + shift; worked out in float64."""
    scale = norm.invstd.double() if gamma is None else norm.invstd.double() * gamma.detach().double()
    shift = -norm.mean.double() * scale
    if beta is not None:
        shift = shift + beta.detach().double()
    return scale.float().contiguous(), shift.float().contiguous()


def gradients(
    plan: Plan, grad: Tensor, x: Tensor, gamma: Tensor | None, beta: Tensor | None, sums: Tensor | None,
    decay_sums: Tensor | None, combine_: Callable[..., None],
) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor | None]:  # fmt: skip
    """Gradients at `x`, gamma, beta and the decay, from that at the norm's output, which is turned into the first in
    place.

    `sums`, with a norm: float64 [tasks, 2, C], of the gradient and of its products with the input less the mean.
    `decay_sums`: float64 [tasks]. `combine_` as in `native`.
    """
    grad_decay = None if decay_sums is None else decay_sums.sum().to(torch.float32)
    if plan.norm is None or sums is None:
        return grad, None, None, grad_decay
    norm, layout = plan.norm, native.MemoryLayout.of(x, 1 if plan.repeat else 2)
    total, cross = sums.sum(0)
    invstd = norm.invstd.double()
    grad_gamma = invstd * cross
    a = invstd if gamma is None else invstd * gamma.detach().double()
    b, c = torch.zeros_like(a), torch.zeros_like(a)
    if norm.batch_statistics:
        count = layout.images * layout.plane
        b = -a * invstd * grad_gamma / count
        c = -a * total / count - b * norm.mean.double()
    combine_(grad, x, a.float().contiguous(), b.float().contiguous(), c.float().contiguous(), layout)
    return grad, None if gamma is None else grad_gamma.float(), None if beta is None else total.float(), grad_decay
