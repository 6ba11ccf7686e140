"""Launches the Triton kernels: a `Plan` on dense float32 CUDA tensors. triton is imported when the first one runs.

On CPU tensors they run in Triton's interpreter, if TRITON_INTERPRET=1 was set before that: slow, but the same kernels.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from isofire.neurons import native
from isofire.neurons.constant import constant_in_graphs
from isofire.neurons.fused import Kernels, Plan, affine_of, gradients, layouts
from isofire.neurons.state_quantizer import AffineState, StateQuantizer, TableState

MOST_STEPS = 32
"""Steps whose membranes the backward kernel keeps in registers."""


@constant_in_graphs
def missing(device: str, index: int | None) -> str | None:
    """Why the kernels cannot run on "cuda" with its index, or "cpu"; None if they do, which is tried once."""
    return _missing(device, index)


@cache
def _missing(device: str, index: int | None) -> str | None:
    if find_spec("triton") is None:
        return "needs the package triton; use 'auto'"
    from triton import knobs  # pyright: ignore[reportMissingImports]

    if device != "cuda" and not (device == "cpu" and knobs.runtime.interpret):
        return f"runs on CUDA, and on a CPU with TRITON_INTERPRET=1 only, got a tensor on {device}; use 'auto'"
    place = torch.device(device) if index is None else torch.device(device, index)
    if device == "cuda" and torch.version.hip is None and torch.cuda.get_device_capability(place) < (8, 0):
        return f"needs a GPU of compute capability 8.0 or more, {place} has less; use 'auto'"
    try:
        x = torch.zeros(2, 1, device=place)
        moments(x, native.MemoryLayout.of(x, 1))
    except Exception as error:  # a C compiler or Python's headers may be missing, which Triton calls for
        return f"cannot run Triton on {place} ({type(error).__name__}: {error}); use 'auto'"
    return None


@dataclass(frozen=True)
class _Tiles:
    """How a layout's elements are cut into tiles of one program each."""

    layout: native.MemoryLayout
    size: int = 512

    @property
    def last(self) -> bool:
        # a single channel is the same in both orders, and its places need no division in this one
        return self.layout.channels_last or self.layout.channels == 1

    @property
    def items(self) -> int:
        return self.layout.images * self.layout.plane

    @property
    def shape(self) -> tuple[int, int]:
        """Places and channels of a tile; channels that lie side by side are read together."""
        across = min(32, 1 << (self.layout.channels - 1).bit_length()) if self.last else 1
        return self.size // across, across

    @property
    def counts(self) -> tuple[int, int]:
        """Tiles over the places and over the channels."""
        return -(-self.items // self.shape[0]), -(-self.layout.channels // self.shape[1])

    def sums(self, like: Tensor) -> Tensor:
        """Two rows [C] a tile over the places, float64, for a kernel to fill."""
        shape = self.counts[0], 2, self.layout.channels
        return torch.empty(shape, dtype=torch.float64, device=like.device)

    def run(self, kernel: str, x: Tensor, **given: Any) -> None:
        """Launch it over all tiles."""
        from isofire.neurons import triton_kernels

        (items, channels), (along, across) = self.shape, self.counts
        with torch.cuda.device(x.device) if x.is_cuda else nullcontext():
            getattr(triton_kernels, kernel)[(along * across,)](
                x=x, items=self.items, channels=self.layout.channels, plane=self.layout.plane,
                LAST=self.last, ITEMS=items, CHANNELS=channels, enable_fp_fusion=False, **given,
            )  # fmt: skip


def forward(x: Tensor, gamma: Tensor | None, beta: Tensor | None, decay: Tensor | None, plan: Plan) -> Tensor:
    """As `fused.native_forward`."""
    layout, seen = layouts(x, plan)
    spikes = native.empty((plan.steps, *x.shape) if plan.repeat else x.shape, layout, 2, device=x.device)
    given = _arguments(plan, seen, gamma, beta, decay)
    _Tiles(seen).run("fire", x, spikes=spikes, counts=plan.counts, steps=plan.steps, COUNT=plan.counts is not None,
                     **given)  # fmt: skip
    return spikes


def backward(
    grad: Tensor, x: Tensor, gamma: Tensor | None, beta: Tensor | None, decay: Tensor | None, plan: Plan
) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor | None]:
    """As `fused.native_backward`."""
    layout, seen = layouts(x, plan)
    # more steps need more registers an element
    tiles = _Tiles(seen, 512 if plan.steps <= 8 else 256 if plan.steps <= 16 else 128)
    incoming = native.dense(grad.float(), 2, layout)
    grad_in = native.empty(x.shape, layout, 1 if plan.repeat else 2, device=x.device)
    sums = None if plan.norm is None else tiles.sums(x)
    learned = None if decay is None else x.new_empty(tiles.counts[0] * tiles.counts[1], dtype=torch.float64)
    mean = None if plan.norm is None else plan.norm.mean.float().contiguous()
    d, (lo, hi) = plan.dynamics, _bounds(plan.state, seen.channels)
    tiles.run("fire_backward", x, grad_spikes=incoming, grad_in=grad_in, sums=sums, decay_sums=learned, mean=mean,
              lo=lo, hi=hi, alpha=d.surrogate.alpha, STEPS=plan.steps, DETACH=d.detach_reset, CLIPPED=lo is not None,
              SURROGATE=d.surrogate.code, **_arguments(plan, seen, gamma, beta, decay))  # fmt: skip
    return gradients(plan, grad_in, x, gamma, beta, sums, learned, _combine)


def moments(x: Tensor, layout: native.MemoryLayout) -> tuple[Tensor, Tensor]:
    """As `native.moments`."""
    tiles = _Tiles(layout)
    sums = tiles.sums(x)
    tiles.run("moments", x, sums=sums)
    mean, square = sums.sum(0) / tiles.items
    return mean, (square - mean * mean).clamp(min=0.0)


def _combine(g: Tensor, x: Tensor, a: Tensor, b: Tensor, c: Tensor, layout: native.MemoryLayout) -> None:
    _Tiles(layout).run("combine", x, g=g, a=a, b=b, c=c)


def _arguments(
    plan: Plan, seen: native.MemoryLayout, gamma: Tensor | None, beta: Tensor | None, decay: Tensor | None
) -> dict[str, Any]:
    """What both kernels take."""
    d, norm = plan.dynamics, plan.norm
    scale, shift = (None, None) if norm is None else affine_of(norm, gamma, beta)
    place = 0 if plan.state is None else 1 if plan.state.placement == "pre_fire" else 2
    return {
        "scale": scale, "shift": shift, "decay": decay, "step_size": seen.images * seen.channels * seen.plane,
        "tau": d.kernel_tau, "threshold": d.v_threshold, "reset": d.rest, "CHARGE": d.kernel,
        "HARD": d.v_reset is not None, "REPEAT": plan.repeat, "NORM": norm is not None, "PLACE": place,
        **_quantizer(plan.state, seen.channels),
    }  # fmt: skip


def _quantizer(state: StateQuantizer | None, channels: int) -> dict[str, Any]:
    """Origins and steps [C], or edges and levels [1 or C, ...] with 2^BITS levels."""
    found = {"first": None, "second": None, "k_min": 0.0, "k_max": 0.0, "rows": 0, "BITS": 0}
    match state:
        case AffineState(affine=affine):
            first, second = _rows(affine.origin, channels), _rows(affine.step, channels)
            return {
                **found,
                "first": first,
                "second": second,
                "k_min": float(affine.k_min),
                "k_max": float(affine.k_max),
            }
        case TableState():
            edges, levels = state.rows()
            return {**found, "first": edges, "second": levels, "rows": int(state.groups > 1), "BITS": state.bits}
    return found


def _bounds(state: StateQuantizer | None, channels: int) -> tuple[Tensor | None, Tensor | None]:
    if state is None or state.gradient_range is None:
        return None, None
    lo, hi = state.gradient_range
    return _rows(lo, channels), _rows(hi, channels)


def _rows(values: Tensor, channels: int) -> Tensor:
    return values.float().expand(channels).contiguous()


TRITON_KERNELS = Kernels(forward, backward, moments)
