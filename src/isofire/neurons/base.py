"""The neuron modules' common base: state, path selection, fusion with a batch norm."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from isofire.errors import ModelError, SpecError
from isofire.neurons import fused, native, reference
from isofire.neurons.dynamics import Dynamics
from isofire.neurons.fold import apply_per_step
from isofire.neurons.membrane import MembraneQuantizer
from isofire.neurons.state_quantizer import NATIVE_BITS, StateQuantizer

Backend = Literal["auto", "native", "torch", "reference"]
_LOW = (torch.bfloat16, torch.float16)
_AXES: dict[type, tuple[int, ...]] = {nn.BatchNorm1d: (2, 3), nn.BatchNorm2d: (4,), nn.BatchNorm3d: (5,)}


class Neuron(nn.Module):
    """A layer of spiking neurons over T steps, starting at rest in every forward call.

    Attributes
    ----------
    dynamics
        The layer's constants.
    membrane
        None, or the quantizer of the membrane potential and its place in the step.
    backend
        "auto" takes the fastest path that computes the same; "native" (compiled, CPU, float32), "torch" and
        "reference" force one and raise ModelError where it cannot run.
    counting, spike_counts
        While `counting` is set, the native path leaves each neuron's spikes of the last forward, summed over T, in
        `spike_counts`: uint8 [N, ...], valid until the next forward. None where another path ran or T > 255; count
        the output then. For recorders.
    """

    counting: bool = False
    spike_counts: Tensor | None = None
    _counts: Tensor | None = None

    def __init__(self, dynamics: Dynamics, backend: Backend = "auto") -> None:
        super().__init__()
        if backend not in get_args(Backend):
            raise SpecError(f"backend must be one of {', '.join(get_args(Backend))}, got {backend!r}")
        self.dynamics = dynamics
        self.membrane: MembraneQuantizer | None = None
        self.backend: Backend = backend

    def decay(self) -> Tensor | None:
        """PLIF's 1/tau as a scalar tensor that carries gradient; None for the others."""
        return None

    def forward(self, x: Tensor, norm: _BatchNorm | None = None, repeat: int | None = None) -> Tensor:
        """Spikes, 0. or 1. (or counts), in the input's dtype; under autocast float32, as states are at least.

        Parameters
        ----------
        x
            Input currents [T, N, ...]; with `repeat`, [N, ...].
        norm
            A batch norm to apply to the input first, over [T * N, ...]. Its running statistics are updated as its own
            forward would; where nothing forbids it the two run as one kernel and `norm`'s forward is not called.
        repeat
            Present the input `x` [N, ...] at each of this many steps (direct coding).

        Returns
        -------
        Tensor
            [T, N, ...].

        Raises
        ------
        ModelError
            If T is 0, `x` has no [T, N] axes, or a forced backend cannot run this call.
        """
        steps = self._steps(x, repeat)
        self.spike_counts = None
        dtype = x.dtype
        if dtype in _LOW:
            if norm is not None and norm.weight is not None and norm.weight.dtype == dtype:
                x, norm = (norm(x) if repeat is not None else apply_per_step(norm, x)), None
            spikes = self._fire(x.float(), norm, repeat, steps)
            return spikes if torch.is_autocast_enabled(x.device.type) else spikes.to(dtype)
        return self._fire(x if x.is_floating_point() else x.float(), norm, repeat, steps)

    def _fire(self, x: Tensor, norm: _BatchNorm | None, repeat: int | None, steps: int) -> Tensor:
        """Spikes for float32 or float64 inputs, by the path that fits."""
        state = self._fixed_state(x if repeat is not None else x[0])
        path = self._path(x, state)
        if path == "native" and (norm is None or _can_fuse(norm, x.ndim - (repeat is None))):
            return self._run_native(x, norm, state, steps, repeat is not None)
        if norm is not None:
            x = norm(x) if repeat is not None else apply_per_step(norm, x)
        if repeat is not None:
            x = x.unsqueeze(0).expand(steps, *x.shape)
        if path == "native":
            return self._run_native(x, None, state, steps, False)
        if path == "torch":
            return fused.run_torch(x, self.decay(), fused.Plan(self.dynamics, steps, state=state))
        return reference.run(self.dynamics, x, self.decay(), self.membrane)

    def _steps(self, x: Tensor, repeat: int | None) -> int:
        steps = x.shape[0] if repeat is None and x.ndim else repeat
        if x.ndim < (2 if repeat is None else 1) or not steps or steps < 1:
            raise ModelError(
                f"{type(self).__name__} needs inputs [T, N, ...] with T >= 1 steps, got shape {tuple(x.shape)}"
                + (f" with repeat={repeat}" if repeat is not None else "")
            )
        return steps

    def _fixed_state(self, state: Tensor) -> StateQuantizer | None:
        """The membrane quantizer as the fast paths run it; None without one, or where it learns or observes."""
        if self.membrane is None or self.backend == "reference" or not self.membrane.is_fixed:
            return None
        return self.membrane.fixed_state(state)

    def _path(self, x: Tensor, state: StateQuantizer | None) -> str:
        fixed = self.membrane is None or state is not None
        plain = self.dynamics.is_plain
        if self.backend == "reference" or (self.backend == "auto" and not (fixed and plain)):
            return "reference"
        if not plain:
            raise ModelError(f"backend {self.backend!r} knows neither v_floor nor several spikes a step; use 'auto'")
        if not fixed:
            raise ModelError(f"backend {self.backend!r} cannot learn or observe a membrane quantizer; use 'auto'")
        if self.backend == "torch":
            return "torch"
        fits = state is None or state.is_native
        runs = native.usable(x) and fits
        if self.backend == "native" and not runs:
            raise ModelError(
                f"backend 'native' needs the compiled kernels and float32 on a CPU, got {x.dtype} on {x.device}"
                f"{'' if native.library() else ' and no kernels'}; use 'auto'"
                if fits
                else f"backend 'native' takes membrane quantizers of at most {1 << NATIVE_BITS} levels that lie on no "
                "uniform grid; use 'auto'"
            )
        return "native" if runs else "torch"

    def _run_native(
        self, x: Tensor, norm: _BatchNorm | None, state: StateQuantizer | None, steps: int, repeat: bool
    ) -> Tensor:
        x = native.dense(x, 1 if repeat else 2)
        gamma, beta, affine = None, None, None
        if norm is not None:
            affine, gamma, beta = _normalise(norm, x, repeat), norm.weight, norm.bias
        counts = None
        if self.counting and steps <= fused.MOST_COUNTED:
            counts = self._count_buffer(x if repeat else x[0])
        plan = fused.Plan(self.dynamics, steps, repeat, state, affine, counts)
        spikes = fused.run_native(x, gamma, beta, self.decay(), plan)
        self.spike_counts = counts
        return spikes

    def _count_buffer(self, state: Tensor) -> Tensor:
        """Memory for the counts of a batch of states; that of the last batch, if it fits."""
        old = self._counts
        if old is not None and old.shape == state.shape and old.stride() == state.stride():
            return old
        self._counts = torch.empty_like(state, dtype=torch.uint8)
        return self._counts

    def extra_repr(self) -> str:
        d = self.dynamics
        leak = "" if d.kind == "if" else f"tau={d.tau:g}, decay_input={d.decay_input}, "
        more = f"{'' if d.v_floor is None else f', v_floor={d.v_floor:g}'}{', several=True' if d.several else ''}"
        return f"{leak}v_threshold={d.v_threshold:g}, v_reset={d.v_reset}{more}, surrogate={d.surrogate}"


def _can_fuse(norm: _BatchNorm, ndim: int) -> bool:
    """A plain batch norm in float32 that takes inputs of `ndim` axes, and whose own forward nobody listens to."""
    plain = ndim in _AXES.get(type(norm), ())
    hooked = norm._forward_hooks or norm._forward_pre_hooks or norm._backward_hooks or norm._backward_pre_hooks
    return plain and not hooked and (norm.weight is None or norm.weight.dtype == torch.float32)


def _normalise(norm: _BatchNorm, x: Tensor, repeat: bool) -> fused.Norm:
    """Statistics for this call; in training, from the batch, and the running ones are updated."""
    layout = native.MemoryLayout.of(x, 1 if repeat else 2)
    if layout.channels != norm.num_features:
        raise ModelError(f"batch norm expects {norm.num_features} channels, got input {tuple(x.shape)}")
    if not norm.training and norm.running_mean is not None and norm.running_var is not None:
        return fused.Norm(norm.running_mean.clone(), _invstd(norm.running_var, norm.eps), False)
    count = layout.images * layout.plane
    if count < 2:
        raise ModelError(f"batch norm in training needs more than one value per channel, got input {tuple(x.shape)}")
    mean, var = native.moments(x.detach(), layout)
    if norm.training and norm.running_mean is not None and norm.running_var is not None:
        with torch.no_grad():
            assert norm.num_batches_tracked is not None
            norm.num_batches_tracked += 1
            rate = 1.0 / float(norm.num_batches_tracked) if norm.momentum is None else norm.momentum
            norm.running_mean.lerp_(mean.to(norm.running_mean.dtype), rate)
            norm.running_var.lerp_((var * (count / (count - 1))).to(norm.running_var.dtype), rate)
    return fused.Norm(mean, _invstd(var, norm.eps), True)


def _invstd(var: Tensor, eps: float) -> Tensor:
    return torch.rsqrt(var.double() + eps)
