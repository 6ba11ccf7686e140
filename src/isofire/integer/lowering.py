"""From a float or quantized network to integers: its own quantization, exactly, or a chip's arithmetic."""

from __future__ import annotations

import math
import os
from collections.abc import Collection
from typing import get_args

import torch
from torch import Tensor, nn

from isofire.errors import ModelError, SpecError
from isofire.integer.builder import Builder, Source, input_step, shapes_of
from isofire.integer.chip_neuron import Gain
from isofire.integer.connection import INPUT
from isofire.integer.decays import ShiftBy
from isofire.integer.hardware import HardwareSpec
from isofire.integer.mapping import map_onto, network_of
from isofire.integer.network import Encoder, IntegerNetwork
from isofire.integer.refusals import RefusedError, allowed
from isofire.integer.stages import Stage, check_neurons, stages_of
from isofire.quantization import convert, is_converted, note_spec_, spec_of
from isofire.quantization.on_levels import require_levels
from isofire.running import evaluating, require_finite

_MOST_BITS = 32
"""Of inputs and weights, which C programs hold in so many."""


def lower(
    model: nn.Module,
    example: Tensor,
    *,
    hardware: HardwareSpec | str | os.PathLike[str] | None = None,
    approximate: bool | Collection[str] = False,
    shift_by: ShiftBy = "factor",
    gain: Gain = "keep",
    input_bits: int | None = None,
    weight_bits: int = _MOST_BITS,
) -> IntegerNetwork:
    """The network in integers: what it computes with quantized weights and membranes, without a floating-point number.

    Without `hardware`, quantized weights become the codes of their levels, membrane quantizers tables of whole
    numbers. What is in full precision is put on grids: inputs on one of `input_bits` bits with a power of two as its
    step, and the weights of layers that the spec leaves alone on `weight_bits` bits. `network.notes` says so, layer by
    layer; `differences` counts what it changes.

    With `hardware`, it becomes what that chip runs. Whatever the chip does otherwise is refused, all of it at once,
    until `approximate` allows it; `network.mapping` then holds what was changed and what the network takes of the chip,
    and `steps_of` measures what each change does alone.

    Parameters
    ----------
    model
        A `SEWResNet` with "add", or an `nn.Sequential` (with `PerStep` and `Repeat`) of convolutions, linear layers,
        batch norms, average pools and isofire's IF, LIF, ParametricLIF, CubaLIF and Recurrent; quantized or
        not. It is left as it is.
    example
        Inputs as the model takes them: a batch of the data. Its largest magnitude is the largest that the integer
        network takes, rounded up to a power of two; on a chip it shows how large states become.
    hardware
        A chip: the name of a preset, a `HardwareSpec`, or its TOML file.
    approximate
        For a chip: True, or names of `APPROXIMATIONS`, such as ("weights", "decays").
    shift_by
        For chips whose decays are bit shifts, see `isofire.integer.decays`.
    gain
        "l2": thresholds follow the change of gain that a chip's decays make.
    input_bits, weight_bits
        2..32 each; without hardware. `input_bits` None: whole numbers >= 0, such as spikes and pixels, stay as they are
        if the example holds no others; else 32, or as many fewer as pools of the inputs add to them.

    Raises
    ------
    RefusedError
        If the chip does not take the network, or not without approximations; its `refusals` say each layer, rule,
        number and cure.
    ModelError
        If a layer has no integer counterpart, or quantized weights were changed since.
    SpecError
        If a number of bits is out of range, or a chip or name unknown.
    """
    for name, bits in (("input_bits", input_bits), ("weight_bits", weight_bits)):
        if bits is not None and not 2 <= bits <= _MOST_BITS:
            raise SpecError(f"{name} must lie in 2..{_MOST_BITS}, got {bits}")
    if not isinstance(example, Tensor) or not example.numel():
        got = list(example.shape) if isinstance(example, Tensor) else type(example).__name__
        raise ModelError(f"example must be a tensor of inputs as the network takes them, one at least, got {got}")
    if not bool(torch.isfinite(example).all()):
        raise ModelError("example holds numbers that are infinite or none (nan); give inputs as the network takes them")
    require_finite(model)
    require_levels(model)
    for name, given, known in (("shift_by", shift_by, get_args(ShiftBy)), ("gain", gain, get_args(Gain))):
        if given not in known:
            raise SpecError(f"{name} must be one of {', '.join(known)}, got {given!r}")
    names = allowed(approximate)
    if hardware is not None and (input_bits is not None or weight_bits != _MOST_BITS):
        raise SpecError(
            "input_bits and weight_bits are of a network's own integers; a chip has its own, leave them out"
        )
    if hardware is None and (names or shift_by != "factor" or gain != "keep"):
        raise SpecError("approximate, shift_by and gain are of a chip; give hardware=")
    if spec_of(model) is not None and not is_converted(model):
        model = convert(model)
    if hardware is None:
        network = _in_own_integers(model, example, input_bits, weight_bits)
    else:
        chip = hardware if isinstance(hardware, HardwareSpec) else HardwareSpec.load(hardware)
        network = _on_chip(model, example, chip, names, shift_by, gain)
    note_spec_(network, spec_of(model))
    return network


def _in_own_integers(model: nn.Module, example: Tensor, bits: int | None, weight_bits: int) -> IntegerNetwork:
    stages, steps = stages_of(model)
    check_neurons(model, stages)
    frames = steps is None or example.ndim == 5
    shape = tuple(example.shape[2 if frames else 1 :])
    encoder = _encoder(example, bits, _added_bits(stages, shape), None if frames else steps)
    with torch.no_grad(), evaluating(model):
        shapes, run_steps = shapes_of(model, example)
        builder = Builder(shapes, run_steps, encoder, weight_bits, {INPUT: Source(2 ** (encoder.bits - 1) - 1, shape)})
        for stage in stages:
            builder.add(stage)
    network = IntegerNetwork(
        builder.populations, builder.connections, shape, encoder=encoder, readout=builder.readout, notes=builder.notes,
        most_steps=None if builder.fades else run_steps,
    )  # fmt: skip
    _check_shapes(network, example[:, :1] if frames else example[:1], shapes)
    return network


def _encoder(example: Tensor, bits: int | None, added: int, steps: int | None) -> Encoder:
    """Of whole numbers as they are, where the example has no others and no bits are asked for; else of real ones."""
    most = _MOST_BITS - added
    whole = bits is None and torch.equal(example, example.round()) and bool((example >= 0).all())
    if whole and 0 < (largest := float(example.max())) < 2.0 ** (most - 2):
        # others may hold a few more of them in a place, but a spike is never two
        return Encoder(1.0, int(largest).bit_length() + 1 + int(largest > 1), steps, counts=True)
    bits = most if bits is None else bits
    return Encoder(input_step(example, bits), bits, steps)


def _added_bits(stages: list[Stage], shape: tuple[int, ...]) -> int:
    """By how many bits sums of pools are wider than the inputs."""
    pools = [stage.pools for stage in stages if INPUT in stage.sources]
    places = max(math.prod(math.prod(pool.sum.size or shape[-2:]) for pool in each) for each in pools)
    return min((places - 1).bit_length(), _MOST_BITS - 2)


def _on_chip(
    model: nn.Module, example: Tensor, chip: HardwareSpec, names: frozenset[str], shift_by: ShiftBy, gain: Gain
) -> IntegerNetwork:
    stages, steps = stages_of(model)
    check_neurons(model, stages)
    for stage in stages:
        if stage.within:
            raise ModelError(
                f"the pool {stage.within[0]!r} stands between the convolution {stage.layer_name!r} and its neurons, "
                "where no chip has one; put it behind the neurons and train again, or give the convolution its stride"
            )
    frames = steps is None or example.ndim == 5
    with torch.no_grad(), evaluating(model):
        shapes, _ = shapes_of(model, example)
        mapping = map_onto(chip, model, stages, example, shapes, frames=frames, shift_by=shift_by, gain=gain)
    if any(refusal.rule not in names for refusal in mapping.refusals):
        raise RefusedError(chip.title, [r for r in mapping.refusals if r.rule not in names])
    network = network_of(mapping, tuple(example.shape[2 if frames else 1 :]), None if frames else steps)
    _check_shapes(network, example[:, :1] if frames else example[:1], shapes)
    return network


def _check_shapes(network: IntegerNetwork, image: Tensor, shapes: dict[str, tuple[int, ...]]) -> None:
    trace = network.run(network.codes(image))
    for name, fired in trace.spikes.items():
        if tuple(fired.shape[2:]) != shapes[name]:
            raise ModelError(f"{name!r} has neurons {list(shapes[name])}, integers {list(fired.shape[2:])}")
