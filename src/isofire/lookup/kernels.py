"""One call of the compiled look-ups: a layer and the neurons behind it, described to the kernel."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from isofire.lookup import native
from isofire.lookup.affine import Geometry
from isofire.lookup.counts import PackedCounts
from isofire.lookup.tensors import Products, Sums
from isofire.lookup.tiles import SpikeMap, cut_real, tiles_for
from isofire.neurons import Neuron
from isofire.neurons.single_state import MembraneDynamics
from isofire.neurons.state_quantizer import AffineState, StateQuantizer, TableState


def run_direct(neuron: Neuron, isa: str, x: Products, repeat: int | None) -> SpikeMap:
    """Spikes behind a convolution of real inputs."""
    inputs = x.inputs if repeat else x.inputs.unflatten(0, x.shape[:2])
    geometry, weight = Geometry.of(cast(nn.Conv2d, x.layer)), x.weight.contiguous()
    images, (out, height, width) = inputs.shape[-4], x.shape[-3:]
    tiles = tiles_for(images, height, width)
    seen, size, inner = inputs, (height, width), geometry
    if tiles is not None:
        seen, size, inner = cut_real(inputs, tiles, geometry), (tiles.height, tiles.width), geometry.without_pad()
    steps = repeat or inputs.shape[0]
    spikes = native.maps(seen.shape[-4], *size, steps, out)
    problem = native.Direct()
    problem.images, problem.channels, problem.height, problem.width = seen.shape[-4:]
    problem.steps, problem.maps = steps, 1 if repeat else steps
    problem.step_t = 0 if repeat else seen.stride(0)
    problem.step_n, problem.step_c, problem.step_y, problem.step_x = seen.stride()[-4:]
    problem.out_height, problem.out_width, problem.out_channels = *size, out
    _describe_geometry(problem, inner)
    problem.threads, problem.isa = torch.get_num_threads(), native.ISAS.index(isa)
    problem.weights = native.floats(weight)
    kept = _describe(problem.neurons, neuron, x.affine.floats(1), (images, out, height, width))
    native.run(problem, (seen,), spikes, [weight, *kept])
    return SpikeMap(spikes, images, (height, width), tiles)


def run_tables(neuron: Neuron, isa: str, x: Sums, counts: PackedCounts) -> SpikeMap:
    """Spikes of a layer by the compiled look-ups."""
    geometry, out = x.layer.geometry(counts), x.layer.weight.shape[0]
    steps, images, channels, *in_size = counts.shape
    height, width = geometry.out_size(*in_size)
    tables = x.codes.tables(channels, *geometry.kernel, counts.most)
    tiles = tiles_for(images, height, width)
    if tiles is None:
        seen, size, inner = counts.streams, (height, width), geometry
    else:
        seen = tuple(each.cut(tiles, geometry) for each in counts.maps)
        size, inner = (tiles.height, tiles.width), geometry.without_pad()
    spikes = seen[0].new_empty((seen[0].shape[0], *size, steps, -(-out // 4), native.LANES))
    problem = native.Layer()
    problem.blocks, problem.in_height, problem.in_width, problem.steps, problem.in_groups, _ = seen[0].shape
    problem.out_height, problem.out_width, problem.out_channels = *size, out
    _describe_geometry(problem, inner)
    problem.streams, problem.passes = len(seen), tables.passes
    problem.high_factor, problem.threads = tables.high_factor, torch.get_num_threads()
    problem.isa, problem.together = native.ISAS.index(isa), tables.together
    problem.tables = tables.memory.data_ptr()
    problem.runs = tables.runs.data_ptr()
    problem.pass_runs = tables.pass_runs.data_ptr()
    kept = _describe(problem.neurons, neuron, x.affine.floats(x.spikes.divisor), tuple(x.shape[1:]))
    native.run(problem, seen, spikes, [tables.memory, tables.runs, tables.pass_runs, *kept])
    return SpikeMap(spikes, images, (height, width), tiles)


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
