"""What to quantize, and how: frozen, versioned values with a content hash, from Python, TOML or JSON."""

from __future__ import annotations

import hashlib
import math
import tomllib
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import msgspec
from msgspec import Meta, Struct

from isofire.errors import SpecError

VERSION = 1

Span = tuple[float, float]
Grid = Literal["endpoint", "midtread", "twos_complement", "midrise"]
WeightRange = Literal["minmax", "percentile", "ksigma", "mse", "aciq"]
MembraneRange = Literal["minmax", "percentile", "ksigma", "mse"]
Granularity = Literal["tensor", "channel"]
Ste = Literal["clipped", "plain"]


class _Setting(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="method"):
    """Checks that hold for every quantizer's settings, also when built in Python (where nothing decodes them)."""

    max_bits: ClassVar[int] = 16

    def __post_init__(self) -> None:
        bits = getattr(self, "bits", 1)
        if not (isinstance(bits, int) and 1 <= bits <= self.max_bits):
            raise SpecError(
                f"bits must be a whole number in 1..{self.max_bits}, got {bits!r}; "
                "for full precision leave the rule out"
            )
        for name in ("range", "clip"):
            span = getattr(self, name, None)
            if span is not None and not isinstance(span, str):
                _check_span(name, span)


def _check_span(name: str, span: Any) -> None:
    if len(span) != 2 or not all(isinstance(x, int | float) and math.isfinite(x) for x in span):
        raise SpecError(f"{name} must be two finite numbers [low, high], got {span!r}")
    if not span[0] < span[1]:
        raise SpecError(f"{name} must not be empty: low < high, got [{span[0]}, {span[1]}]; swap or widen it")


class UniformWeights(_Setting, frozen=True, kw_only=True, tag="uniform"):
    """Uniform grid; see `isofire.quantizers.Uniform`. `range` is fixed [low, high] or estimated from the weights."""

    bits: int
    grid: Grid = "endpoint"
    range: Span | WeightRange = "mse"
    percentile: float = 99.9
    k: float = 3.0
    distribution: Literal["gaussian", "laplace"] = "gaussian"
    granularity: Granularity = "channel"
    ste: Ste = "plain"
    power_of_two: bool = False
    refresh: int | None = None


class LSQWeights(_Setting, frozen=True, kw_only=True, tag="lsq"):
    """Learned step size; see `isofire.quantizers.LSQ`."""

    bits: int
    granularity: Granularity = "channel"


class LQNetWeights(_Setting, frozen=True, kw_only=True, tag="lqnet"):
    """Learned basis of LQ-Nets; see `isofire.quantizers.LQNet`. `clip` clamps the weights first (the paper's range)."""

    max_bits: ClassVar[int] = 8

    bits: int
    granularity: Granularity = "channel"
    clip: Span | None = None
    restarts: int = 0
    init: Literal["data", "official"] = "data"


class TaWQWeights(_Setting, frozen=True, kw_only=True, tag="tawq"):
    """Ternary weights that change with the step; see `isofire.quantizers.TaWQ`. `steps` must equal the model's T."""

    steps: Annotated[int, Meta(ge=1)] = 4
    scale: Literal["inverse_density", "mse"] = "inverse_density"


WeightSetting = UniformWeights | LSQWeights | LQNetWeights | TaWQWeights


class UniformMembrane(_Setting, frozen=True, kw_only=True, tag="uniform"):
    """Uniform membrane quantizer and where it acts; see `isofire.neurons.Membrane`.

    `range` is fixed [low, high], or estimated from the states of calibration data: [-c, c] if `signed`, else [0, c].
    `granularity` "tensor" is one range a layer, "channel" one a channel.
    """

    bits: int
    placement: Literal["pre_fire", "post_reset"] = "pre_fire"
    range: Span | MembraneRange = (-1.0, 1.0)
    signed: bool = True
    grid: Grid = "endpoint"
    percentile: float = 99.9
    k: float = 3.0
    granularity: Granularity = "tensor"
    ste: Ste = "clipped"


MembraneSetting = UniformMembrane
Keep = Literal["float"]


class Rule(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings for the modules that `match` names: an exact name, or a pattern `re:...` that matches the whole name.

    A target that is left out (None) keeps the spec's default; "float" leaves the module alone.
    """

    match: str
    weights: WeightSetting | Keep | None = None
    membrane: MembraneSetting | Keep | None = None


class QuantSpec(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which weights and membranes to quantize.

    Parameters
    ----------
    weights, membrane
        The defaults for every convolution and linear layer, and for every layer of neurons; None leaves them alone.
        Plain dicts are accepted: ``{"method": "lsq", "bits": 4}``.
    rules
        Exceptions. An exact name beats a pattern, an earlier pattern beats a later one, a rule beats the default and
        the policy of the first and last layer.
    first_layer, last_layer
        "float" (LQ-Nets and most of the field) or "quantize".
    reestimate_bn
        When batch-norm statistics are measured anew after post-training quantization: when "weights" were quantized,
        "always" or "never".

    Raises
    ------
    SpecError
        If a value is out of range, a key is unknown, or settings contradict each other.

    Examples
    --------
    >>> QuantSpec(weights={"method": "lsq", "bits": 4}).weights.bits
    4
    """

    weights: WeightSetting | None = None
    membrane: MembraneSetting | None = None
    rules: tuple[Rule, ...] = ()
    first_layer: Literal["float", "quantize"] = "float"
    last_layer: Literal["float", "quantize"] = "float"
    reestimate_bn: Literal["weights", "always", "never"] = "weights"
    version: int = VERSION

    def __post_init__(self) -> None:
        # also checks values given in Python, which msgspec itself only does while decoding
        checked = {
            "weights": _convert(self.weights, WeightSetting | None, "weights"),
            "membrane": _convert(self.membrane, MembraneSetting | None, "membrane", method="uniform"),
            "rules": tuple(_convert(rule, Rule, f"rules[{i}]") for i, rule in enumerate(self.rules)),
        }
        for name, value in checked.items():
            msgspec.structs.force_setattr(self, name, value)
        if self.version != VERSION:
            raise SpecError(
                f"spec version must be {VERSION}, got {self.version}; update the file or install its isofire"
            )
        for name, allowed in (
            ("first_layer", ("float", "quantize")),
            ("last_layer", ("float", "quantize")),
            ("reestimate_bn", ("weights", "always", "never")),
        ):
            if getattr(self, name) not in allowed:
                raise SpecError(f"{name} must be one of {', '.join(allowed)}, got {getattr(self, name)!r}")
        if self.weights is None and self.membrane is None and not self.rules:
            raise SpecError("the spec quantizes nothing: give weights, membrane or rules")

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> QuantSpec:
        """A spec from plain values, as TOML or JSON give them; errors name the place, such as `$.weights.bits`."""
        return _convert(_with_default_method(data), cls, "spec")

    @classmethod
    def from_toml(cls, path: str | Path) -> QuantSpec:
        """A spec from a TOML file, at its top level or under `[quant]`."""
        data = read_toml(path)
        return cls.from_dict(data.get("quant", data))

    def to_dict(self) -> dict[str, Any]:
        """Plain values, complete with defaults; `from_dict` gives the spec back."""
        return msgspec.to_builtins(self)

    def hash(self) -> str:
        """Sixteen hex digits of the content; equal specs have equal hashes, on any machine."""
        return hashlib.sha256(msgspec.json.encode(self, order="deterministic")).hexdigest()[:16]


def read_toml(path: str | Path) -> dict[str, Any]:
    """A TOML file as a dict.

    Raises
    ------
    SpecError
        If it is missing or not TOML; says where.
    """
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise SpecError(f"cannot read {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SpecError(f"{path} is not valid TOML: {error}") from error


def _with_default_method(data: dict[str, Any]) -> dict[str, Any]:
    """Membranes have one method so far; a file need not say it."""
    if not isinstance(data, dict):
        raise SpecError(f"a spec must be a table, got {type(data).__name__}")
    rules = data.get("rules")
    filled = dict(data)
    if isinstance(rules, list | tuple):
        filled["rules"] = [_default_membrane(rule) for rule in rules]
    return _default_membrane(filled)


def _default_membrane(table: Any) -> Any:
    if isinstance(table, dict) and isinstance(table.get("membrane"), dict):
        return {**table, "membrane": {"method": "uniform", **table["membrane"]}}
    return table


def _convert(value: Any, kind: Any, place: str, method: str | None = None) -> Any:
    if isinstance(value, dict):
        value = {"method": method, **value} if method else _default_membrane(value)
    try:
        return msgspec.convert(msgspec.to_builtins(value), kind)
    except msgspec.ValidationError as error:
        text = str(error)
        where = text.rsplit(" - at `", 1)
        path = f"{place}{where[1].rstrip('`').removeprefix('$')}" if len(where) == 2 else place
        raise SpecError(f"{where[0]} (at {path}){_cure(where[0], path)}") from error


def _cure(text: str, path: str) -> str:
    if "unknown field" in text:
        return "; see docs/spec.md for the keys that this method takes"
    if "Invalid value" in text and path.endswith("method"):
        return "; weights: uniform, lsq, lqnet or tawq; membrane: uniform"
    return ""
