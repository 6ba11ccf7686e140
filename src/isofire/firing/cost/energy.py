"""An estimate of the energy of one inference, every constant of which is named, cited and can be replaced.

It is an estimate of arithmetic and memory in a 45 nm process at 0.9 V, for comparing networks with each other; it is no
measurement of a chip: routing, clocks, leakage, buffers and the host are not in it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from isofire.conversion import convert
from isofire.errors import SpecError
from isofire.firing.cost.memory import FLOAT_BITS

At = Literal["real", "float"]

HOROWITZ = (
    'M. Horowitz, "Computing\'s energy problem (and what we can do about it)", ISSCC 2014, '
    "doi:10.1109/ISSCC.2014.6757323, 45 nm, 0.9 V"
)
ASSUMED = "an assumption of isofire; replace it by your chip's"
SOURCES = {
    "fp32_add": HOROWITZ,
    "fp32_mul": HOROWITZ,
    "int8_add": HOROWITZ,
    "int8_mul": HOROWITZ,
    "memory_word_bits": HOROWITZ,
    "memory_8kb": HOROWITZ,
    "memory_32kb": HOROWITZ,
    "memory_1mb": HOROWITZ,
    "memory_dram": HOROWITZ + ", lower end of 1.3-2.6 nJ",
    "input_bits": ASSUMED,
    "state_accesses": ASSUMED,
    "adds_per_update": ASSUMED,
}
"""Where each constant comes from."""


@dataclass(frozen=True, kw_only=True)
class EnergyConstants:
    """Energies in pJ, and what is assumed of the chip.

    Parameters
    ----------
    fp32_add, fp32_mul
        One float32 operation; a multiply-accumulate is both, 4.6 pJ, an accumulate 0.9 pJ.
    int8_add, int8_mul
        One 8-bit integer operation. Other widths: an addition grows with the bits, a multiplication with the product of
        both operands' bits, as Horowitz' 32-bit values (0.1 and 3.1 pJ) do within 20 %.
    memory_8kb, memory_32kb, memory_1mb, memory_dram
        Reading or writing `memory_word_bits`; a layer's weights or states lie in the smallest memory that holds them.
    input_bits
        Of a pixel, where the first layer multiplies integers.
    state_accesses
        Reads and writes of a state a step.
    adds_per_update
        Additions for leak, reset and comparison, a state and step.

    Raises
    ------
    SpecError
        If one is negative, not finite or no number.
    """

    fp32_add: float = 0.9
    fp32_mul: float = 3.7
    int8_add: float = 0.03
    int8_mul: float = 0.2
    memory_word_bits: int = 64
    memory_8kb: float = 10.0
    memory_32kb: float = 20.0
    memory_1mb: float = 100.0
    memory_dram: float = 1300.0
    input_bits: int = 8
    state_accesses: int = 2
    adds_per_update: int = 2

    def __post_init__(self) -> None:
        for name in SOURCES:
            value, least = getattr(self, name), int(name in ("memory_word_bits", "input_bits"))
            if not isinstance(value, int | float) or not (math.isfinite(value) and value >= least):
                raise SpecError(
                    f"{name} must be a finite number >= {least}, got {value!r}; its source: {SOURCES[name]}"
                )

    def add(self, bits: int) -> float:
        """One addition of `bits`-bit integers; of float32 at 32 bits."""
        return self.fp32_add if bits >= FLOAT_BITS else self.int8_add * bits / 8

    def mac(self, weight_bits: int, sum_bits: int) -> float:
        """One multiply-accumulate of an input with a weight."""
        if weight_bits >= FLOAT_BITS:
            return self.fp32_mul + self.fp32_add
        return self.int8_mul * weight_bits * self.input_bits / 64 + self.add(sum_bits)

    def access(self, stored_bits: float, moved_bits: float) -> float:
        """Moving `moved_bits` to or from a memory that holds `stored_bits`."""
        kilobytes = stored_bits / 8192
        steps = ((8, self.memory_8kb), (32, self.memory_32kb), (1024, self.memory_1mb))
        word = next((energy for size, energy in steps if kilobytes <= size), self.memory_dram)
        return word * moved_bits / self.memory_word_bits


@dataclass(frozen=True, kw_only=True)
class Energy:
    """pJ of one inference, by what it is spent on.

    Parameters
    ----------
    accumulates, macs
        Arithmetic of event-driven and of multiplying layers.
    weights
        Reading a weight for each of these operations.
    states
        Reading and writing every state at every step.
    updates
        Arithmetic of the neurons themselves.
    """

    accumulates: float
    macs: float
    weights: float
    states: float
    updates: float

    @property
    def total(self) -> float:
        """All of it."""
        return self.accumulates + self.macs + self.weights + self.states + self.updates


@dataclass(frozen=True, kw_only=True)
class LayerWork:
    """What the estimate needs of a weighted layer: operations of one inference, and its sizes.

    Parameters
    ----------
    accumulates, macs
        Operations; one of them is 0.
    weights, bits
        Number of stored weights and bits of each.
    fan_in
        Weights that are added up in one neuron.
    """

    accumulates: float
    macs: float
    weights: int
    bits: int
    fan_in: int


@dataclass(frozen=True, kw_only=True)
class NeuronWork:
    """What the estimate needs of a layer of neurons: their number, steps, bits of a membrane, and further states."""

    neurons: int
    steps: int
    bits: int
    others: int = 0


def estimate(
    layers: list[LayerWork], neurons: list[NeuronWork], at: At = "real", constants: EnergyConstants | None = None
) -> Energy:
    """Energy of one inference.

    Sums are as wide as worst-case sums of integer weights need, weight bits + log2(fan-in); at full precision they are
    float32.

    Parameters
    ----------
    at
        "real": with the bits of weights and states as they are; "float": the same operations at 32 bits.
    constants
        Others than the default.

    Raises
    ------
    SpecError
        If `at` is neither.
    """
    convert(at, At, "at")
    c = EnergyConstants() if constants is None else constants
    accumulates = macs = weights = states = updates = 0.0
    for layer in layers:
        bits = layer.bits if at == "real" else FLOAT_BITS
        width = FLOAT_BITS if bits >= FLOAT_BITS else min(bits + math.ceil(math.log2(max(layer.fan_in, 1))), 31)
        accumulates += layer.accumulates * c.add(width)
        macs += layer.macs * c.mac(bits, width)
        weights += c.access(layer.weights * bits, (layer.accumulates + layer.macs) * bits)
    for layer in neurons:
        bits = layer.bits if at == "real" else FLOAT_BITS
        steps, held = layer.neurons * layer.steps, bits + layer.others * FLOAT_BITS
        states += c.access(layer.neurons * held, steps * c.state_accesses * held)
        updates += steps * c.adds_per_update * (c.add(bits) + layer.others * c.add(FLOAT_BITS))
    return Energy(accumulates=accumulates, macs=macs, weights=weights, states=states, updates=updates)
