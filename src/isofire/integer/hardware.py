"""What a chip's integers do, and its limits: frozen settings, read from TOML files that say where each is from."""

from __future__ import annotations

import os
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import msgspec

from isofire.conversion import MisfitError, convert
from isofire.errors import SpecError
from isofire.integer.arithmetic import WIDEST, DecayRule, Overflow
from isofire.integer.limit_names import Limit, check_names
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
        # the sign, a digit, and the one that even weights give up
        _within("bits", self.bits, 3 if self.even else 2, 16)
        _shifts(self.shift)


class BiasRules(_Rules, frozen=True):
    """A neuron's bias: width with sign (0: none), when it is added, and by how much a layer's may be shifted left."""

    bits: int
    when: Literal["step", "clock", "never"]
    shift: tuple[int, int] = (0, 0)

    def __post_init__(self) -> None:
        _within("bits", self.bits, 2 if self.bits else 0, 32)
        _shifts(self.shift)
        if (self.bits == 0) != (self.when == "never"):
            raise MisfitError("bits", f"{self.bits} contradicts when = {self.when!r}", "; 0 bits go with 'never' alone")


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
        _within("state_bits", self.state_bits, 2, WIDEST)
        _within("threshold_bits", self.threshold_bits, 2, WIDEST)
        _within("threshold_shift", self.threshold_shift, 0, 16)
        self._check_decays()
        _once("reset", self.reset)
        if "subtract" in self.reset and self.threshold_shift:
            raise MisfitError("reset", "'subtract' with a shifted threshold (threshold_shift) is not known of any chip")
        self._check_spikes()
        if self.bias_into == "current" and (self.synapse == "none" or self.increment == "saturated"):
            raise MisfitError(
                "bias_into",
                f"'current' contradicts synapse = {self.synapse!r} with increment = {self.increment!r}",
                "; a bias reaches currents of neurons that have one, and whose increment is 'whole'",
            )

    def _check_decays(self) -> None:
        if (self.synapse == "none") != (self.synapse_decay is None):
            cure = "leave synapse_decay out" if self.synapse == "none" else "give synapse_decay, or synapse = 'none'"
            raise MisfitError(
                "synapse", f"{self.synapse!r} contradicts synapse_decay = {self.synapse_decay}", f"; {cure}"
            )
        for name, rule in (("decay", self.decay), ("synapse_decay", self.synapse_decay)):
            if rule is not None and rule.kind == "fraction" and self.state_bits + rule.bits > WIDEST + 1:
                raise MisfitError(
                    f"{name}.bits",
                    f"{rule.bits} beside state_bits = {self.state_bits} needs products of over 63 bits",
                    f"; together they may be {WIDEST + 1}",
                )

    def _check_spikes(self) -> None:
        for name in ("spikes", "output_spikes", "input_spikes"):
            if (most := getattr(self, name)) is not None and most < 1:
                raise MisfitError(
                    name, f"must be at least 1, got {most}", "; leave the key out where any number is right"
                )
        for name in ("spikes", "output_spikes"):
            if getattr(self, name) == 1:
                continue
            if "subtract" not in self.reset:
                raise MisfitError(name, "several spikes a step need a neuron that subtracts its threshold", " (reset)")
            if self.compare == ">":
                raise MisfitError(name, "several spikes a step are known for compare = '>=' alone, got '>'")


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
    limits: dict[str, Limit]
    sources: dict[str, str]
    oracle: str

    def __post_init__(self) -> None:
        if self.neuron.synapse == "late" or self.neuron.bias_into != "membrane":
            raise SpecError("neuron.synapse 'late' and neuron.bias_into 'current' are of networks without a chip")
        if not self.name:
            raise MisfitError("name", "must not be empty")
        if min(self.delay) < 0:
            raise MisfitError("delay", f"must be two whole numbers >= 0, got {list(self.delay)}")
        _once("layers", self.layers)
        if "recurrent" in self.layers and not self.delay[1]:
            raise MisfitError("delay[1]", "is 0, and recurrent layers need a delay of at least 1 from neurons")
        if self.neuron.deliver == "each" and "conv" in self.layers:
            raise MisfitError(
                "neuron.deliver", "'each' is known of dense layers, and layers has 'conv'", "; take 'sum'"
            )
        if (needed := self.neuron.threshold_bits + self.neuron.threshold_shift) > self.neuron.state_bits:
            raise MisfitError(
                "neuron.threshold_bits",
                f"{self.neuron.threshold_bits}, shifted by {self.neuron.threshold_shift}, is wider than state_bits = "
                f"{self.neuron.state_bits}: no membrane reaches such a threshold",
                f"; with the shift it may be {self.neuron.state_bits} bits, not {needed}",
            )
        for name, bits in (("weights.bits", self.weights.bits), ("bias.bits", self.bias.bits)):
            if bits > self.neuron.state_bits:
                raise MisfitError(
                    name,
                    f"{bits} is wider than neuron.state_bits = {self.neuron.state_bits}, to which it is added",
                    f"; it may be {self.neuron.state_bits}",
                )
        check_names(self.limits)
        self._check_sources()

    def _check_sources(self) -> None:
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


def _shifts(shift: tuple[int, int]) -> None:
    if not 0 <= shift[0] <= shift[1] <= WIDEST:
        raise MisfitError("shift", f"must be [least, most] within 0..{WIDEST}, got {list(shift)}")


def _once(name: str, values: tuple[str, ...]) -> None:
    if not values or len(set(values)) < len(values):
        raise MisfitError(name, f"must name at least one, and each once, got {list(values)}")


def _within(name: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise MisfitError(name, f"must lie in {low}..{high}, got {value}")
