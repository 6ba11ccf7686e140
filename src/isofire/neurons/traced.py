"""The neuron as one operator of a traced graph: `torch.compile` and `torch.export` see `isofire::fire` and go on.

The operators run the same kernels as an eager call, which does not pass through here: compiled ones on the CPU,
Triton's on CUDA.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from isofire.neurons import gpu, native
from isofire.neurons.dynamics import Dynamics
from isofire.neurons.fast_path import Call
from isofire.neurons.fused import NATIVE_KERNELS, Kernels, Norm, Plan
from isofire.neurons.norm_fusion import statistics
from isofire.neurons.single_state import MembraneDynamics
from isofire.neurons.state_quantizer import AffineState, StateQuantizer, TableState
from isofire.neurons.surrogate import SURROGATES
from isofire.quantizers import Affine, Table

_PLACEMENTS = ("", "pre_fire", "post_reset")
_DEVICES = ("cpu", "cuda")


class _Constants(MembraneDynamics):
    """Constants of a layer whose charge is known by its number in the kernels alone."""

    def __init__(self, codes: list[int], values: list[float]) -> None:
        kernel, hard, detach, surrogate = codes
        tau, threshold, rest, alpha = values
        slope = next(kind for kind in SURROGATES.values() if kind.code == surrogate)  # type: ignore[attr-defined]
        fields = {
            "v_threshold": threshold, "v_reset": rest if hard else None, "detach_reset": bool(detach), "v_floor": None,
            "several": False, "surrogate": slope(alpha), "_kernel": kernel, "_tau": tau,
        }  # fmt: skip
        for name, value in fields.items():
            object.__setattr__(self, name, value)

    @property
    def kernel(self) -> int:
        return self._kernel  # type: ignore[attr-defined]

    @property
    def kernel_tau(self) -> float:
        return self._tau  # type: ignore[attr-defined]

    def charge(self, x: Tensor, state: tuple[Tensor, ...], tensors: tuple[Tensor, ...] = ()) -> tuple[Tensor, ...]:
        raise NotImplementedError("the kernels charge it")

    def through_charge(self, g: Tensor, decay: Tensor | None) -> tuple[Tensor, Tensor]:
        raise NotImplementedError("the kernels charge it")


def knows(d: Dynamics) -> bool:
    """Whether a graph can hold this neuron as one operator."""
    return isinstance(d, MembraneDynamics)


def run(d: MembraneDynamics, decay: Tensor | None, call: Call) -> Tensor:
    """Spikes [T, N, ...] as one operator in the graph that is being traced."""
    gamma, beta, norm, fresh = None, None, [], False
    if call.norm is not None:
        gamma, beta = call.norm.weight, call.norm.bias
        *norm, fresh = statistics(call.norm, call.x, call.repeat, lambda x: _moments(x, call.repeat))
    codes = [d.kernel, int(d.v_reset is not None), int(d.detach_reset), d.surrogate.code or 0]
    values = [d.kernel_tau, d.v_threshold, d.rest, d.surrogate.alpha]
    tensors, about, ks = _flat(call.state)
    return _fire(call.x, gamma, beta, decay, norm, fresh, tensors, about, ks, call.steps, call.repeat, codes, values)


def _flat(state: StateQuantizer | None) -> tuple[list[Tensor], list[int], list[float]]:
    """A membrane quantizer as operator arguments: tensors; (table or not, placement, clipped); k_min and k_max."""
    if state is None:
        return [], [0, 0, 0], [0.0, 0.0]
    bounds = [] if state.gradient_range is None else [bound.float() for bound in state.gradient_range]
    about = [int(isinstance(state, TableState)), _PLACEMENTS.index(state.placement), int(bool(bounds))]
    if isinstance(state, TableState):
        return [*state.table, *bounds], about, [0.0, 0.0]
    assert isinstance(state, AffineState)
    grid = state.affine
    return [grid.origin.float(), grid.step.float(), *bounds], about, [float(grid.k_min), float(grid.k_max)]


def _state(tensors: list[Tensor], about: list[int], ks: list[float]) -> StateQuantizer | None:
    table, placement, clipped = about
    if not placement:
        return None
    first, second, *bounds = tensors
    span = (bounds[0], bounds[1]) if clipped else None
    if table:
        return TableState(_PLACEMENTS[placement], span, Table(first, second))
    return AffineState(_PLACEMENTS[placement], span, Affine(first, second, int(ks[0]), int(ks[1])))


def _kernels(x: Tensor) -> Kernels:
    return NATIVE_KERNELS if x.device.type == "cpu" else gpu.TRITON_KERNELS


def _plan(norm: list[Tensor], fresh: bool, tensors: list[Tensor], about: list[int], ks: list[float], steps: int,
          repeat: bool, codes: list[int], values: list[float]) -> Plan:  # fmt: skip
    statistics = Norm(norm[0], norm[1], fresh) if norm else None
    return Plan(_Constants(codes, values), steps, repeat, _state(tensors, about, ks), statistics)


@torch.library.custom_op("isofire::fire", mutates_args=(), device_types=_DEVICES)
def _fire(
    x: Tensor, gamma: Tensor | None, beta: Tensor | None, decay: Tensor | None, norm: list[Tensor], fresh: bool,
    tensors: list[Tensor], about: list[int], ks: list[float], steps: int, repeat: bool, codes: list[int],
    values: list[float],
) -> Tensor:  # fmt: skip
    plan = _plan(norm, fresh, tensors, about, ks, steps, repeat, codes, values)
    return _kernels(x).forward(native.dense(x, 1 if repeat else 2), gamma, beta, decay, plan)


@_fire.register_fake
def _(x, gamma, beta, decay, norm, fresh, tensors, about, ks, steps, repeat, codes, values):
    shape = (steps, *x.shape) if repeat else tuple(x.shape)
    return _empty(x, shape, 1 if repeat else 2, 2)


@torch.library.custom_op("isofire::fire_backward", mutates_args=(), device_types=_DEVICES)
def _fire_backward(
    grad: Tensor, x: Tensor, gamma: Tensor | None, beta: Tensor | None, decay: Tensor | None, norm: list[Tensor],
    fresh: bool, tensors: list[Tensor], about: list[int], ks: list[float], steps: int, repeat: bool, codes: list[int],
    values: list[float],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    plan = _plan(norm, fresh, tensors, about, ks, steps, repeat, codes, values)
    found = _kernels(x).backward(grad, native.dense(x, 1 if repeat else 2), gamma, beta, decay, plan)
    return tuple(x.new_empty(0) if value is None else value for value in found)  # type: ignore[return-value]


@_fire_backward.register_fake
def _(grad, x, gamma, beta, decay, norm, fresh, tensors, about, ks, steps, repeat, codes, values):
    dims = 1 if repeat else 2
    like = [x.new_empty(0) if value is None else torch.empty_like(value) for value in (gamma, beta, decay)]
    return _empty(x, tuple(x.shape), dims, dims), *like


@torch.library.custom_op("isofire::moments", mutates_args=(), device_types=_DEVICES)
def _moments(x: Tensor, repeat: bool) -> tuple[Tensor, Tensor]:
    x = native.dense(x, 1 if repeat else 2)
    return _kernels(x).moments(x, native.MemoryLayout.of(x, 1 if repeat else 2))


@_moments.register_fake
def _(x, repeat):
    dims = 1 if repeat else 2
    channels = x.shape[dims] if x.ndim > dims else 1
    return x.new_empty(channels, dtype=torch.float64), x.new_empty(channels, dtype=torch.float64)


def _empty(x: Tensor, shape: tuple[int, ...], dims: int, out_dims: int) -> Tensor:
    """What the kernels return for `x`: its memory order, contiguous or channels last."""
    folded = x.flatten(0, dims - 1) if dims > 1 else x
    last = folded.ndim == 4 and not folded.is_contiguous() and folded.is_contiguous(memory_format=torch.channels_last)
    order = torch.channels_last if last else torch.contiguous_format
    flat = x.new_empty((math.prod(shape[:out_dims]), *shape[out_dims:])).contiguous(memory_format=order)
    return flat.unflatten(0, shape[:out_dims])


def _setup(ctx, inputs, output) -> None:
    x, gamma, beta, decay, norm, *rest = inputs
    tensors = rest[1]
    ctx.save_for_backward(x, gamma, beta, decay, *norm, *tensors)
    ctx.counts, ctx.rest = (len(norm), len(tensors)), rest


def _backward(ctx, grad):
    x, gamma, beta, decay, *saved = ctx.saved_tensors
    norms, tensors = ctx.counts
    fresh, _, *constants = ctx.rest
    found = _fire_backward(
        grad, x, gamma, beta, decay, saved[:norms], fresh, saved[norms : norms + tensors], *constants
    )
    wanted = (value if given is not None else None for value, given in zip(found, (x, gamma, beta, decay), strict=True))
    return *wanted, [None] * norms, None, [None] * tensors, None, None, None, None, None, None


_fire.register_autograd(_backward, setup_context=_setup)
