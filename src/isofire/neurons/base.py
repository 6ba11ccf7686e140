"""The neuron modules' common base: one call over T steps, and which path runs it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from isofire.errors import ModelError, SpecError
from isofire.neurons import reference
from isofire.neurons.dynamics import Dynamics, State
from isofire.neurons.fast_path import Call, FastPath, in_a_trace
from isofire.neurons.fold import Stateful, apply_per_step
from isofire.neurons.membrane import MembraneQuantizer
from isofire.neurons.state_quantizer import StateQuantizer

Backend = Literal["auto", "native", "triton", "torch", "reference"]
_LOW = (torch.bfloat16, torch.float16)


class Neuron(Stateful):
    """A layer of spiking neurons over T steps, starting at rest in every forward call.

    A kind of neuron is a subclass whose `Dynamics` define its state and its step; `tensors` are its constants that are
    tensors; `fast_paths` declares, fastest first, what else can run it. Without any, the reference does.

    Attributes
    ----------
    dynamics
        The layer's constants and step.
    membrane
        None, or the quantizer of the membrane potential and its place in the step.
    backend
        "auto" takes the fastest path that computes the same; "native" (compiled, CPU, float32), "triton" (CUDA,
        float32), "torch" and "reference" force one and raise ModelError where it cannot run.
    counting, spike_counts
        While `counting` is set, the native and Triton paths leave each neuron's spikes of the last forward, summed over
        T, in `spike_counts`: uint8 [N, ...], valid until the next forward. None where another path ran or T > 255;
        count the output then. For recorders.
    """

    fast_paths: ClassVar[tuple[FastPath, ...]] = ()
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

    def tensors(self) -> State:
        """The tensors that a step of `dynamics` takes beside input and state; with gradient where they are learned."""
        return ()

    @property
    def threshold(self) -> Tensor:
        """The firing threshold: a scalar, or what broadcasts against one image's neurons [C, ...]."""
        return torch.tensor(self.dynamics.v_threshold)

    def decays(self) -> dict[str, Tensor]:
        """State, "membrane" or "synapse" -> the share of it that is lost in a step, 1 / tau, float64; {} if none is."""
        return {}

    def round_decays_(self, rounded: Callable[[str, Tensor], Tensor]) -> None:
        """Put `rounded(state, share)` in the place of every share of `decays`; where it is learned, in every call.

        Raises
        ------
        ModelError
            If a kind that has decays does not say how.
        """
        if self.decays():
            raise ModelError(f"{type(self).__name__} does not say how its decays are changed (round_decays_)")

    def response(self) -> Tensor | None:
        """How strongly the membrane answers to an input, see `isofire.neurons.response`; None if unknown or learned."""
        return None

    def set_threshold_(self, threshold: Tensor) -> None:
        """Change the firing threshold, a number, or one a neuron where the kind has that.

        Raises
        ------
        SpecError
            If the neurons could not fire with it.
        """
        self.dynamics = replace(self.dynamics, v_threshold=float(threshold))

    def states(self, x: Tensor) -> State:
        """Every variable after each step, [T, N, ...], the membrane first, for inputs [T, N, ...]; by the reference."""
        kept: list[State] = []
        reference.run(self.dynamics, x, self.tensors(), self.membrane, self._feedback(), kept)
        return tuple(torch.stack(every) for every in zip(*kept, strict=True))

    def _feedback(self) -> Callable[[Tensor], Tensor] | None:
        """From the spikes of the step before to what they add to the input; None without recurrent connections."""
        return None

    def firing_input(self) -> float:
        """The least input that makes a neuron at rest fire at once, for a charge that is affine in the input.

        Raises
        ------
        ModelError
            If an input does not reach the membrane within its step, or neurons have constants of their own.
        """
        if any(value.numel() > 1 for value in self.tensors()):
            raise ModelError(f"each neuron of this {type(self).__name__} fires at an input of its own")
        with torch.no_grad():
            tensors = tuple(value.double().cpu() for value in self.tensors())
            x = torch.tensor([0.0, 1.0], dtype=torch.float64)
            charged = self.dynamics.charge(x, self.dynamics.initial(x), tensors)
            silent, driven = self.dynamics.distance(charged, tensors).tolist()
        if driven <= silent:
            raise ModelError(f"an input does not raise the membrane of {type(self).__name__} within its own step")
        return -silent / (driven - silent)

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
        call = Call(x, steps, repeat is not None, norm, self._fixed_state(x if repeat is not None else x[0]))
        path = self._path(call)
        if in_a_trace() and self.membrane is not None and not (path is not None and path.is_operator):
            raise ModelError(
                f"torch.jit.trace writes down other numbers for the membrane quantizer of {type(self).__name__} where "
                "its steps are no operator of their own; use torch.export"
            )
        if path is not None and path.takes(call):
            return path.run(self, call)
        if norm is not None:
            x = norm(x) if repeat is not None else apply_per_step(norm, x)
        if repeat is not None:
            x = x.unsqueeze(0).expand(steps, *x.shape)
        if path is not None:
            return path.run(self, Call(x, steps, False, None, call.state))
        return reference.run(self.dynamics, x, self.tensors(), self.membrane)

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

    def _path(self, call: Call) -> FastPath | None:
        """The path that runs this call; None for the reference."""
        if self.backend == "reference":
            return None
        fixed = self.membrane is None or self.membrane.passes or call.state is not None
        wanted = [path for path in self.fast_paths if self.backend in ("auto", path.name)]
        for path in wanted:
            reason = path.refuses(self, call) if fixed else "cannot learn or observe a membrane quantizer; use 'auto'"
            if reason is None:
                return path
            if self.backend != "auto":
                raise ModelError(f"backend {self.backend!r} {reason}")
        if self.backend != "auto":
            raise ModelError(f"backend {self.backend!r} does not know {type(self).__name__}; use 'auto'")
        return None

    def count_buffer(self, state: Tensor) -> Tensor:
        """Memory for the counts of a batch of states; that of the last batch, if it fits."""
        old = self._counts
        if old is not None and old.shape == state.shape and old.stride() == state.stride():
            return old
        self._counts = torch.empty_like(state, dtype=torch.uint8)
        return self._counts

    def extra_repr(self) -> str:
        return self.dynamics.about()
