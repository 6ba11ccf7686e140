"""Stages of a quantized network in integers of their own: codes, folded batch norms, decays as fractions.

A layer's membrane is held in units of its own, one a channel: u = (v - rest) / (step * |g| / 2^f), with g the batch
norm's gain and f binary digits after the point. With decayed input u counts tau times as much, so that what arrives is
added as it is: tau (h - rest) = (1 - 1 / tau) tau (v - rest) + x. A sum of codes is thus shifted left by f, and the
rounding that is left is that of biases, thresholds and levels to a unit, and of decays that are no dyadic fraction.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from isofire.adapters import find_neurons, heard
from isofire.errors import ModelError
from isofire.integer.arithmetic import WIDEST
from isofire.integer.back_weights import BackWeights
from isofire.integer.common_grid import Units, units_of
from isofire.integer.connection import HALF, INPUT, Connection
from isofire.integer.network import Encoder, Readout
from isofire.integer.own_neuron import OwnNeuron
from isofire.integer.population import Population, StateTable
from isofire.integer.stages import Stage
from isofire.neurons import Neuron
from isofire.quantizers.lattice import Codes, codes_of
from isofire.running import forward

_MOST_POINT = 20
_LEAST_POINT = {"zero": 12, "subtract": 20}
"""Binary digits after the point for which 32-bit states are taken; a subtracted threshold's rounding adds up."""
_FACTOR = 30
"""Binary digits of what a readout's sums are multiplied by where each output has a step of its own."""
_MOST_LEVELS = 4096
_NEVER = 1 << 61
_TOLD = 2.0**-40
"""Shares of a threshold beyond which its rounding is told; less is that of float64."""


@dataclass(frozen=True)
class Source:
    """What a connection must know of what it takes: the largest number of one place, and the size of the maps."""

    most: int
    shape: tuple[int, ...]


class Builder:
    """Turns stages into populations and connections, one after the other."""

    def __init__(
        self,
        shapes: dict[str, tuple[int, ...]],
        steps: int,
        encoder: Encoder,
        weight_bits: int,
        sources: dict[str, Source],
    ) -> None:
        self.shapes, self.steps, self.encoder, self.weight_bits, self.sources = (
            shapes,
            steps,
            encoder,
            weight_bits,
            sources,
        )
        self.populations: dict[str, Population] = {}
        self.connections: list[Connection] = []
        self.readout: Readout | None = None
        self.notes: dict[str, list[str]] = {}
        self.fades = True

    def add(self, stage: Stage) -> None:
        notes = self.notes.setdefault(stage.target, [])
        weight, gain, bias, most = self._weights(stage, notes)
        back = None if stage.back is None else BackWeights.of(stage, self.weight_bits, notes)
        if back is not None:
            bias, most = bias + back.bias, most + back.reach / gain
        factor = None
        if stage.neuron is None:
            unit, point, factor = self._read_out(gain, bias, most)
        else:
            more = 0 if back is None else back.digits
            units = self._neurons(stage.target, stage.neuron, gain, bias, most, notes, more)
            unit, point = units.sums, units.point
            weight = weight * units.odd.view(-1, *(1,) * (weight.ndim - 1))
        self._connect(stage, weight, point, unit, factor)
        if back is not None:
            self.connections.append(back.connection(stage.target, unit))

    def _weights(self, stage: Stage, notes: list[str]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Codes, the float value of one [out] (> 0), biases [out], and the largest sum of each output [out]."""
        found = codes_of(stage.layer.weight, self.weight_bits)
        if not found.exact:
            # outputs are read in one unit
            found = codes_of(stage.layer.weight, self.weight_bits, one_step=stage.neuron is None)
            notes.append(
                f"weights of {stage.layer_name!r} are in full precision or on uneven levels: {self.weight_bits} bits"
            )
        if INPUT in stage.sources and not self.encoder.counts:
            notes.append(f"real inputs: {self.encoder.bits} bits, step 2^{round(math.log2(self.encoder.step))}")
        gain, bias = folded(stage, found)
        if stage.neuron is None and not found.exact and bool((gain != gain[0]).any()):
            # so that what a norm multiplies each of them by goes into its weights
            found = codes_of(
                found.codes * gain.view(-1, *(1,) * (found.codes.ndim - 1)), self.weight_bits, one_step=True
            )
            gain = found.step
        unit = self.encoder.step if INPUT in stage.sources else 1.0
        gain = gain * stage.pooled(self.sources[stage.sources[0]].shape, unit)
        weight = found.codes * gain.sign().to(torch.int64).view(-1, *(1,) * (found.codes.ndim - 1))
        most = weight.abs().flatten(1).sum(1).double() * self._most(stage)
        # a channel that sees nothing of its input has a bias alone
        gain = torch.where(gain == 0, torch.ones_like(gain), gain.abs())
        return weight, gain, bias, most

    def _most(self, stage: Stage) -> float:
        most = float(sum(self.sources[source].most for source in stage.sources))
        for pool in stage.pools:
            size = pool.sum.size or self.sources[stage.sources[0]].shape[-2:]
            most *= size[0] * size[1]
        return most

    def _read_out(self, gain: Tensor, bias: Tensor, most: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """One unit of all outputs, the shift of their sums, and what sums are multiplied by where steps differ."""
        # outputs without weights have any unit
        largest = float((gain * (most > 0)).max()) or 1.0
        gain = torch.where(most > 0, gain, torch.full_like(gain, largest))
        bound = float((most + bias.abs() / largest).max())
        if bool((gain == gain[0]).all()):
            point, factor = min(_MOST_POINT, (30 if bound < 2**22 else 50) - bits_of(bound)), None
            unit = largest / 2.0**point
        else:
            unit = largest / 2.0 ** min(_FACTOR, WIDEST - 1 - bits_of(bound))
            point, factor = 0, (gain / unit).round().to(torch.int64)
        self.readout = Readout((bias / unit).round().to(torch.int64), unit)
        return torch.full_like(bias, unit), torch.full(bias.shape, point, dtype=torch.int64), factor

    def _neurons(
        self, name: str, neuron: Neuron, gain: Tensor, bias: Tensor, most: Tensor, notes: list[str], more: int
    ) -> Units:
        """The units of each output, with `more` binary digits after a code's point than usual."""
        shape = self.shapes[name]
        own = OwnNeuron.of(name, neuron, shape, self.steps, notes)
        bound = self._bound(neuron, own, gain, bias, most)
        self.fades = self.fades and own.fades
        reset = "subtract" if own.soft else "zero"
        digits = torch.tensor([bits_of(b) for b in bound.tolist()])
        bits = 32 if int(digits.max()) <= 30 - _LEAST_POINT[reset] - more else WIDEST - own.bits
        point = (bits - 2 - digits).clamp(max=_MOST_POINT + more)
        numbers = own.numbers(neuron, bias)
        unit = gain / 2.0**point
        wanted = 2.0 ** _LEAST_POINT["zero"] if int(point.min()) < 0 else 1.0
        if (finest := float((own.threshold / unit).min())) < wanted:
            needed = bits - 2 + math.ceil(math.log2(wanted / max(finest, 2.0**-900)))
            raise ModelError(
                f"the states of {name!r} need {needed} bits for its sums beside its threshold, {bits - 2} are there; "
                "give fewer input_bits or weight_bits, or look for weights that are far larger than others"
            )

        units = units_of(gain, point, numbers)
        unit = units.numbers

        def wide(values: Tensor) -> Tensor:
            return values.view(-1, *(1,) * (len(shape) - 1))

        population = Population(
            own.rules(bits), shape, threshold=wide(reached(own.threshold / unit, above=own.above)),
            bias=wide(rounded(bias / unit)), decay=wide(own.lost), synapse_decay=wide(own.synapse_lost), reset=reset,
            floor=None if own.floor is None else wide(rounded(own.gain * own.floor / unit)),
            subtract=None if own.subtract is None else wide(rounded(own.subtract / unit)),
            scale=wide(units.sums / own.gain), table=_table(name, neuron, own, unit),
        )  # fmt: skip
        self.populations[name] = population
        fit = bound * 2.0**point / population.threshold.flatten().double()
        self.sources[name] = Source(int(fit.max()) + 1 if own.several else 1, shape)
        _note_rounding(population, own, bias / units.sums, units, notes)
        return units

    def _bound(self, neuron: Neuron, own: OwnNeuron, gain: Tensor, bias: Tensor, most: Tensor) -> Tensor:
        """Largest magnitude of each channel's membrane, current, threshold and bias, in units of `gain`."""
        step = most + bias.abs() / gain
        reach = step * own.memory
        if neuron.membrane is not None:
            levels = neuron.membrane.quantizer.levels().double().abs()
            top = levels.amax(1).expand(len(gain))
            reach = reach.maximum(own.gain * (top + abs(own.rest)) / gain + step)
        largest = own.threshold if own.subtract is None else own.threshold.maximum(own.subtract)
        return reach.maximum(largest / gain) + 1.0

    def _connect(self, stage: Stage, weight: Tensor, point: Tensor, unit: Tensor, factor: Tensor | None) -> None:
        layer, pools = stage.layer, tuple(pool.sum for pool in stage.pools)
        step = unit * (2.0**point if factor is None else factor)
        geometry = stage.geometry() if isinstance(layer, nn.Conv2d) else {}
        connection = Connection(
            sources=stage.sources,
            target=stage.target,
            weight=weight,
            pools=pools,
            shift=point,
            step=step,
            factor=factor,
            **geometry,
        )
        fan = int(weight.abs().flatten(1).sum(1).max())
        if connection.is_rounded and fan * max(2.0**HALF, self._most(stage) / 2.0**HALF) >= 2.0**WIDEST:
            raise ModelError(f"sums into {stage.target!r} need over {WIDEST} bits; give fewer weight_bits")
        self.connections.append(connection)


def folded(stage: Stage, found: Codes) -> tuple[Tensor, Tensor]:
    """Float value of one code of each output, with its factors' signs, and the bias of each output; float64 [out]."""
    bias = torch.zeros_like(found.step) if stage.layer.bias is None else stage.layer.bias.detach().double().cpu()
    slope, norm = torch.ones_like(found.step), stage.norm
    if norm is not None:
        assert norm.running_mean is not None
        assert norm.running_var is not None
        mean, deviation = norm.running_mean.double().cpu(), (norm.running_var.double().cpu() + norm.eps).sqrt()
        slope = (slope if norm.weight is None else norm.weight.detach().double().cpu()) / deviation
        bias = (bias - mean) * slope + (0.0 if norm.bias is None else norm.bias.detach().double().cpu())
    scale = torch.ones_like(slope) if stage.scale is None else stage.scale
    return found.step * slope * scale, bias * scale


def _note_rounding(population: Population, own: OwnNeuron, bias: Tensor, units: Units, notes: list[str]) -> None:
    """Tell by how much threshold and biases, here in units of their sums, are moved, if they are."""
    exact = (own.threshold / units.sums).expand_as(units.sums)
    moved = {
        "the threshold is": population.threshold.flatten() - int(own.above) - exact,
        "biases are": population.bias.flatten() - bias,
    }
    said = [(what, float((by.abs() / exact).max())) for what, by in moved.items()]
    if any(by > _TOLD for _, by in said):
        told = " and ".join(f"{what} rounded by up to {by:.1e}" for what, by in said if by > _TOLD)
        notes.append(f"{told}, as shares of the threshold")


def _table(name: str, neuron: Neuron, own: OwnNeuron, unit: Tensor) -> StateTable | None:
    if neuron.membrane is None:
        return None
    table = neuron.membrane.quantizer.table()
    if table is None or table.levels.shape[1] > _MOST_LEVELS:
        raise ModelError(
            f"the membrane of {name!r} has no fixed table of at most {_MOST_LEVELS} levels, which integers need; "
            "quantize it to 12 bits or fewer by a method with fixed levels, or leave it float"
        )
    edges, levels = (own.gain.view(-1, 1) * (part.double().cpu() - own.rest) / unit.view(-1, 1) for part in table)
    placement: Literal["pre_fire", "post_reset"] = neuron.membrane.placement
    return StateTable(placement, _floor(edges), rounded(levels))


def _snapped(x: Tensor) -> tuple[Tensor, Tensor]:
    """Nearest whole numbers, and where they are meant: float32's rounding away from x."""
    near = x.round()
    return near, (x - near).abs() <= (x.abs() * 2.0**-22).clamp(min=1e-6)


def held(x: Tensor) -> Tensor:
    return x.clamp(-_NEVER, _NEVER).to(torch.int64)


def rounded(x: Tensor) -> Tensor:
    return held(x.round())


def _floor(x: Tensor) -> Tensor:
    """Edges: u > floor(x) where u > x, for whole u."""
    near, meant = _snapped(x.clamp(-_NEVER, _NEVER))
    return held(torch.where(meant, near, x.clamp(-_NEVER, _NEVER).floor()))


def reached(x: Tensor, *, above: bool = False) -> Tensor:
    """Thresholds: u >= ceil(x) where u >= x, for whole u; with `above`, where u > x."""
    near, meant = _snapped(x)
    return held(torch.where(meant, near + int(above), x.ceil()))


def bits_of(bound: float) -> int:
    return max(1, math.ceil(math.log2(bound + 1.0)))


def input_step(example: Tensor, bits: int) -> float:
    largest = float(example.abs().max()) if example.numel() else 0.0
    if not math.isfinite(largest) or largest == 0.0:
        raise ModelError(f"an example of the data must show how large inputs are, got a largest of {largest}")
    return 2.0 ** math.ceil(math.log2(largest / (2 ** (bits - 1) - 1)))


def shapes_of(model: nn.Module, example: Tensor) -> tuple[dict[str, tuple[int, ...]], int]:
    """Shape of every layer of neurons for one image, and T."""
    shapes: dict[str, tuple[int, ...]] = {}
    steps: list[int] = []

    def note(name: str, spikes: Tensor) -> None:
        shapes[name] = tuple(spikes.shape[2:])
        steps.append(len(spikes))

    if not (neurons := find_neurons(model)):
        raise ModelError("the network has no neurons; integers are of networks that spike")
    with heard(neurons, note):
        forward(model, example)
    return shapes, steps[0]
