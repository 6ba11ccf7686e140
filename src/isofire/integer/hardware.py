"""What a chip's integers do, and its limits: frozen settings, read from TOML files that say where each is from."""

from __future__ import annotations

import os
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import msgspec

from isofire.conversion import convert
from isofire.errors import SpecError
from isofire.integer.arithmetic import WIDEST, DecayRule, Overflow
from isofire.toml_json import parse_toml, read_toml

_PRESETS = resources.files("isofire.integer") / "presets"


class _Rules(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of the tables of a chip's file."""


class WeightRules(_Rules, frozen=True):
    """Weights: width with sign, allowed left shifts of a group of synapses, and what has one scale.

    `even`: weights of mixed signs are even, which costs the lowest bit (Loihi). `shift_per`: a connection has a shift
    of its own, or all from the input, all between hidden neurons, and all to the outputs have one each (Xylo).
    """

    bits: int
    shift: tuple[int, int]
    even: bool
    scale: Literal["layer", "neuron", "population"]
    shift_per: Literal["connection", "group"] = "connection"

    def __post_init__(self) -> None:
        _within("weights.bits", self.bits, 1, 16)
        _shifts("weights.shift", self.shift)


class BiasRules(_Rules, frozen=True):
    """A neuron's bias: width with sign (0: none), when it is added, and by how much a layer's may be shifted left."""

    bits: int
    when: Literal["step", "clock", "never"]
    shift: tuple[int, int] = (0, 0)

    def __post_init__(self) -> None:
        _within("bias.bits", self.bits, 0, 32)
        _shifts("bias.shift", self.shift)
        if (self.bits == 0) != (self.when == "never"):
            raise SpecError(f"a bias of {self.bits} bits contradicts when = {self.when!r}")


class NeuronRules(_Rules, frozen=True):
    """The step of a chip's neuron: deliver, decay, integrate, bias, fire, reset.

    Parameters
    ----------
    synapse
        "none": what arrives goes to the membrane. "after": into a current that decays and is then used. "before": the
        current decays, takes what arrives, and is used. "late": it is used, then decays and takes what arrives; no chip
        is known that does.
    synapse_decay, decay
        Of the current and of the membrane; None: it does not decay.
    deliver
        "sum": what arrives in a step is added up first. "each": every event is an addition of its own, in order of
        index, and overflows for itself.
    increment
        "whole": membrane, current and bias are one sum. "saturated": what the step adds is held in the state's width
        before it is added (Xylo's second version).
    state_bits, overflow, current_overflow
        Width of both states, and what the membrane and the current (or the sum that arrives) do beyond it.
    compare
        With which relation to the threshold a membrane fires.
    threshold_bits, threshold_shift
        Width of a threshold, and by how much it is shifted left before it is compared.
    reset
        What a neuron can be set to do.
    spikes, output_spikes, input_spikes
        Most spikes a step of a hidden neuron, of an output, and of an input that counts; None: any number.
    floor
        Whether membranes have a lower bound that can be set.
    bias_into
        What a neuron's bias is added to.
    """

    synapse: Literal["none", "after", "before", "late"]
    synapse_decay: DecayRule | None
    decay: DecayRule | None
    deliver: Literal["sum", "each"]
    increment: Literal["whole", "saturated"]
    state_bits: int
    overflow: Overflow
    current_overflow: Overflow
    compare: Literal[">=", ">"]
    threshold_bits: int
    threshold_shift: int
    reset: tuple[Literal["subtract", "zero"], ...]
    spikes: int | None
    output_spikes: int | None
    input_spikes: int | None
    floor: bool
    bias_into: Literal["membrane", "current"] = "membrane"

    def __post_init__(self) -> None:
        _within("neuron.state_bits", self.state_bits, 2, WIDEST)
        _within("neuron.threshold_bits", self.threshold_bits, 2, WIDEST)
        _within("neuron.threshold_shift", self.threshold_shift, 0, 16)
        if (self.synapse == "none") != (self.synapse_decay is None):
            raise SpecError(f"neuron.synapse = {self.synapse!r} contradicts its synapse_decay ({self.synapse_decay})")
        if not self.reset:
            raise SpecError("neuron.reset must name subtract, zero or both, got none")
        if "subtract" in self.reset and self.threshold_shift:
            raise SpecError("neuron.reset 'subtract' with a shifted threshold is not known of any chip")
        if any(most is not None and most < 1 for most in (self.spikes, self.output_spikes, self.input_spikes)):
            raise SpecError("spikes a step must be at least 1; leave the key out where any number is right")
        if self.spikes != 1 and "subtract" not in self.reset:
            raise SpecError("several spikes a step need a neuron that subtracts its threshold (neuron.reset)")


class HardwareSpec(_Rules, frozen=True):
    """A chip: its arithmetic, its limits, and where each is from.

    Parameters
    ----------
    delay
        Steps that a spike takes from the inputs and from neurons.
    layers
        Kinds of layers: dense, conv, recurrent, sum_pool.
    limits
        Numbers, by name, as the chip's documents give them; one for each core where cores differ. Those that
        `isofire.integer.limits` knows are checked; others are refused.
    sources
        Key or table -> package, file or document, and whether it was run or read.
    oracle
        The package, with its version, that the arithmetic was compared with.
    """

    name: str
    title: str
    weights: WeightRules
    bias: BiasRules
    neuron: NeuronRules
    delay: tuple[int, int]
    layers: tuple[Literal["dense", "conv", "recurrent", "sum_pool"], ...]
    limits: dict[str, int | tuple[int, ...]]
    sources: dict[str, str]
    oracle: str

    def __post_init__(self) -> None:
        if self.neuron.synapse == "late" or self.neuron.bias_into != "membrane":
            raise SpecError("neuron.synapse 'late' and neuron.bias_into 'current' are of networks without a chip")
        if min(self.delay) < 0:
            raise SpecError(f"delay must be two whole numbers >= 0, got {list(self.delay)}")
        if "recurrent" in self.layers and not self.delay[1]:
            raise SpecError("recurrent layers need a delay of at least 1 from neurons, got delay[1] = 0")
        if negative := [key for key, value in self.limits.items() if min(_each(value), default=-1) < 0]:
            raise SpecError(f"limits.{negative[0]} must be at least 0, got {self.limits[negative[0]]}")
        known = {field.name for field in msgspec.structs.fields(type(self))}
        tables = {"weights", "bias", "neuron", "limits", "delay", "layers"}
        if missing := tables - {key.partition(".")[0] for key in self.sources}:
            raise SpecError(f"sources must say where {', '.join(sorted(missing))} is from; add sources.{min(missing)}")
        if unknown := {key.partition(".")[0] for key in self.sources} - known:
            raise SpecError(f"sources names {min(unknown)!r}, which is no table of the file")

    @classmethod
    def from_dict(cls, values: dict[str, Any], where: str = "hardware") -> HardwareSpec:
        """A chip of plain values.

        Keys that hold null in Python are left out in TOML: `synapse_decay`, `decay` and the three numbers of spikes.

        Raises
        ------
        SpecError
            If a field is missing, unknown, out of its range, or contradicts another; says which.
        """
        filled = dict(values)
        if isinstance(filled.get("neuron"), dict):
            optional = ("synapse_decay", "decay", "spikes", "output_spikes", "input_spikes")
            filled["neuron"] = dict.fromkeys(optional) | filled["neuron"]
        try:
            return convert(filled, cls)
        except SpecError as error:
            raise SpecError(f"{where}: {error}") from error

    @classmethod
    def load(cls, name: str | os.PathLike[str]) -> HardwareSpec:
        """A preset by its name, or a chip of your own from a TOML file.

        Raises
        ------
        SpecError
            If there is no such preset or file, or what it says cannot be.

        Examples
        --------
        >>> HardwareSpec.load("loihi1").neuron.compare
        '>'
        """
        if str(name) in PRESETS:
            text = (_PRESETS / f"{name}.toml").read_text(encoding="utf-8")
            return cls.from_dict(parse_toml(text), f"preset {name}")
        if Path(name).suffix != ".toml":
            raise SpecError(f"hardware must be one of {', '.join(PRESETS)} or a .toml file, got {os.fspath(name)!r}")
        return cls.from_dict(read_toml(name), os.fspath(name))


PRESETS: tuple[str, ...] = tuple(
    sorted(entry.name.removesuffix(".toml") for entry in _PRESETS.iterdir() if entry.name.endswith(".toml"))
)
"""Chips that come with the package."""


def _each(limit: int | tuple[int, ...]) -> tuple[int, ...]:
    return (limit,) if isinstance(limit, int) else limit


def _shifts(name: str, shift: tuple[int, int]) -> None:
    if not 0 <= shift[0] <= shift[1] <= WIDEST:
        raise SpecError(f"{name} must be [least, most] within 0..{WIDEST}, got {list(shift)}")


def _within(name: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise SpecError(f"{name} must lie in {low}..{high}, got {value}")
