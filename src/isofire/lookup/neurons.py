"""Neurons of a fast network: behind tables they run in the same kernel, elsewhere as they are."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from isofire.lookup import native
from isofire.lookup.affine import Geometry
from isofire.lookup.counts import DenseCounts, PackedCounts
from isofire.lookup.layers import LayerCodes
from isofire.lookup.tensors import Products, Spikes, Sums, norm_of, plain
from isofire.neurons import Neuron, apply_per_step
from isofire.neurons.norm_fusion import can_fuse
from isofire.neurons.single_state import MembraneDynamics
from isofire.neurons.state_quantizer import AffineState, StateQuantizer, TableState

if TYPE_CHECKING:
    _Base = Neuron
else:
    _Base = nn.Module

LEAST_IMAGES = 8
"""With fewer, most of the 32 images of a look-up would be empty, and torch is faster."""


class TableNeuron(_Base):
    """Mixed into the class of isofire's neurons in a fast network.

    Attributes
    ----------
    isa
        The instruction set of the tables; None: sums by torch.
    said
        How the last forward ran, and why not by tables.
    """

    isa: str | None = None
    said: tuple[str, str] = ("", "not run yet")

    def forward(self, x: Tensor, norm: _BatchNorm | None = None, repeat: int | None = None) -> Tensor:
        """As `Neuron.forward`, spikes as a tensor that later layers read packed."""
        once = isinstance(x, Products) and x.folded
        if isinstance(x, Sums | Products) and x.own is None and x.folded == once == (repeat is not None):
            x, norm = _normed(x, norm, once)
            if isinstance(x, Sums | Products):
                return self._behind(x, norm, repeat)
        self.__dict__["said"] = "as it was", "its input is no sum of spikes by codes"
        return self._wrapped(super().forward(plain(x), norm, repeat))

    def _behind(self, x: Sums | Products, norm: _BatchNorm | None, repeat: int | None) -> Tensor:
        """Behind a layer of tables, or a convolution of real inputs."""
        reason = "its batch norm is in training or a second one" if norm is not None else self._refuses(x)
        self.spike_counts = None
        if isinstance(x, Products):
            if reason:
                self.__dict__["said"] = "torch, in order", reason
                return self._wrapped(super().forward(x.in_order(), norm, repeat))
            self.__dict__["said"] = f"in order, {self.isa}", ""
            images = x.shape[0 if repeat else 1]
            return Spikes(PackedCounts((run_direct(self, x, repeat),), images, x.layer.weight.shape[0]))
        if not reason and x.shape[1] < LEAST_IMAGES:
            reason = f"{x.shape[1]} images are fewer than {LEAST_IMAGES}"
        counts = None if reason else x.spikes.counts.packed()
        if counts is None:
            self.__dict__["said"] = "torch, by codes", reason or "counts are too large to be packed"
            return self._wrapped(super().forward(x.plain(), norm))
        self.__dict__["said"] = f"tables, {self.isa}", ""
        fired = PackedCounts((run_tables(self, x, counts),), counts.shape[1], x.layer.weight.shape[0])
        return Spikes(fired, "maps" if x.ndim == 5 else "features")

    def _refuses(self, x: Sums | Products) -> str | None:
        """Why the kernel cannot run these neurons on this input; None if it can."""
        if self.isa is None:
            return "the compiled look-ups are absent or not wanted"
        if self.backend != "auto":
            return f"the neurons are to run by backend {self.backend!r}"
        if not isinstance(self.dynamics, MembraneDynamics) or not self.dynamics.is_plain:
            return f"{type(self.dynamics).__name__} with more than a membrane, or with a floor or several spikes a step"
        if self.membrane is not None and not self.membrane.is_fixed:
            return "the membrane's quantizer learns or observes"
        return None

    def _wrapped(self, spikes: Tensor) -> Tensor:
        """Spikes for later layers to pack; counts whose largest is not known stay as they are."""
        if not self.dynamics.is_plain or spikes.dtype != torch.float32 or spikes.ndim not in (3, 5):
            return spikes
        maps = spikes if spikes.ndim == 5 else spikes[..., None, None]
        return Spikes(DenseCounts(maps, 1), "maps" if spikes.ndim == 5 else "features")


def _normed(x: Sums | Products, norm: _BatchNorm | None, once: bool) -> tuple[Tensor, _BatchNorm | None]:
    """The norm as part of the sums where nothing forbids it."""
    if norm is None:
        return x, None
    if not can_fuse(norm, x.ndim - 1 + once):
        return norm(x) if once else apply_per_step(norm, x), None
    found = norm_of(x, norm)
    return (x, norm) if found is None else (found, None)


def run_direct(neuron: Neuron, x: Products, repeat: int | None) -> Tensor:
    """Spikes behind a convolution of real inputs: uint8 [blocks, H, W, T, out / 4, 32]."""
    geometry, weight = Geometry.of(cast(nn.Conv2d, x.layer)), x.layer.weight.detach().contiguous()
    inputs = x.inputs if repeat else x.inputs.unflatten(0, x.shape[:2])
    images, channels, height, width = inputs.shape[-4:]
    out, *size = x.shape[-3:]
    steps = repeat or inputs.shape[0]
    spikes = native.maps(images, size[0], size[1], steps, out)
    problem = native.Direct()
    problem.images, problem.steps, problem.maps = images, steps, 1 if repeat else steps
    problem.channels, problem.height, problem.width = channels, height, width
    problem.step_t = 0 if repeat else inputs.stride(0)
    problem.step_n, problem.step_c, problem.step_y, problem.step_x = inputs.stride()[-4:]
    problem.out_height, problem.out_width, problem.out_channels = *size, out
    _describe_geometry(problem, geometry)
    problem.threads, problem.isa = torch.get_num_threads(), native.ISAS.index(cast(Any, neuron).isa)
    problem.inputs, problem.weights, problem.spikes = (
        native.floats(inputs),
        native.floats(weight),
        native.bytes_(spikes),
    )
    kept = _describe(problem.neurons, neuron, x.affine.floats(1), (images, out, *size))
    native.run(problem)
    del kept
    return spikes


def run_tables(neuron: Neuron, x: Sums, counts: PackedCounts) -> Tensor:
    """Spikes of a layer by the compiled look-ups: uint8 [blocks, H, W, T, out / 4, 32]."""
    layer = x.layer
    found = cast(LayerCodes, layer.found())
    geometry = layer.geometry(counts)
    steps, _, channels, height, width = counts.shape
    tables = found.tables(channels, *geometry.kernel, len(counts.streams))
    out_height, out_width = geometry.out_size(height, width)
    out = layer.weight.shape[0]
    spikes = native.maps(counts.shape[1], out_height, out_width, steps, out)
    problem = native.Layer()
    problem.blocks, problem.steps, problem.in_height, problem.in_width = spikes.shape[0], steps, height, width
    problem.in_groups, problem.out_channels = counts.streams[0].shape[4], out
    problem.out_height, problem.out_width = out_height, out_width
    _describe_geometry(problem, geometry)
    problem.streams, problem.passes = len(counts.streams), tables.passes
    problem.high_factor, problem.threads = tables.high_factor, torch.get_num_threads()
    problem.isa, problem.together = native.ISAS.index(cast(Any, neuron).isa), tables.together
    problem.inputs = native.pointers(counts.streams)
    problem.tables = ctypes.cast(tables.memory.data_ptr(), ctypes.POINTER(ctypes.c_int8))
    problem.runs = tables.runs.data_ptr()
    problem.pass_runs = ctypes.cast(tables.pass_runs.data_ptr(), ctypes.POINTER(ctypes.c_int64))
    problem.spikes = native.bytes_(spikes)
    kept = _describe(problem.neurons, neuron, x.affine.floats(x.spikes.divisor), x.shape[1:])
    native.run(problem)
    del kept
    return spikes


def _describe_geometry(problem: native.Layer | native.Direct, geometry: Geometry) -> None:
    problem.kernel_height, problem.kernel_width = geometry.kernel
    problem.stride_y, problem.stride_x = geometry.stride
    problem.pad_y, problem.pad_x = geometry.pad
    problem.dilation_y, problem.dilation_x = geometry.dilation


def _describe(n: native.Neurons, neuron: Neuron, affine: tuple[Tensor, Tensor], shape: tuple[int, ...]) -> list[Tensor]:
    """Fill in the neurons, of a batch of states `shape`; returns the tensors that they point to."""
    d = cast(MembraneDynamics, neuron.dynamics)
    decay = next(iter(neuron.tensors()), None)
    scale, shift = affine
    n.charge, n.hard_reset = d.kernel, d.v_reset is not None
    n.tau = d.kernel_tau if decay is None else float(decay)
    n.threshold, n.reset = d.v_threshold, d.rest
    n.scale, n.shift = native.floats(scale), native.floats(shift)
    kept = [scale, shift]
    if neuron.membrane is not None:
        kept += _describe_state(n, neuron.membrane.fixed_state(torch.zeros(()).expand(shape)))
    return kept


def _describe_state(n: native.Neurons, state: StateQuantizer) -> list[Tensor]:
    n.placement, n.state_rows = 1 if state.placement == "pre_fire" else 2, state.groups
    match state:
        case AffineState(affine=affine):
            origin, step = (part.float().expand(state.groups).contiguous() for part in (affine.origin, affine.step))
            n.origin, n.step, n.k_min, n.k_max = native.floats(origin), native.floats(step), affine.k_min, affine.k_max
            return [origin, step]
        case TableState(table=table):
            edges, levels = (part.float().contiguous() for part in table)
            n.edges, n.levels, n.level_count = native.floats(edges), native.floats(levels), levels.shape[1]
            return [edges, levels]
    raise AssertionError(f"a membrane quantizer of another kind: {type(state).__name__}")
