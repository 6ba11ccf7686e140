"""What to quantize, and how: frozen, versioned values with a content hash, from Python, TOML or JSON."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import msgspec
from msgspec import Struct

from isofire.conversion import MisfitError, NamedKeys, convert
from isofire.errors import SpecError
from isofire.quantizers import CONSTANTS, MEMBRANES, WEIGHTS, ConstantSetting, MembraneSetting, WeightSetting, decode
from isofire.quantizers.methods.bitshift import BitShift
from isofire.quantizers.methods.fixed import Fixed
from isofire.quantizers.methods.fraction import Fraction
from isofire.quantizers.methods.levels import LevelsMembrane, LevelsWeights
from isofire.quantizers.methods.lqnet import LQNetWeights
from isofire.quantizers.methods.lsq import LSQWeights
from isofire.quantizers.methods.tawq import TaWQWeights
from isofire.quantizers.methods.uniform import UniformConstant, UniformMembrane, UniformWeights
from isofire.toml_json import read_toml

__all__ = [
    "CONSTANT_TARGETS",
    "TARGETS",
    "BitShift",
    "ConstantSetting",
    "Fixed",
    "Fraction",
    "LQNetWeights",
    "LSQWeights",
    "LevelsMembrane",
    "LevelsWeights",
    "MembraneSetting",
    "QuantSpec",
    "Rule",
    "TaWQWeights",
    "UniformConstant",
    "UniformMembrane",
    "UniformWeights",
    "WeightSetting",
]

VERSION = 1
MEMBRANE_DEFAULT = "uniform"
"""The method of a membrane that names none."""

CONSTANT_TARGETS = ("decays", "thresholds", "biases")
"""Constants of neurons and layers that a spec may round."""
TARGETS = ("weights", "membrane", *CONSTANT_TARGETS)
"""All that a spec may quantize; keys of it and of its rules."""

Keep = Literal["float"]

if TYPE_CHECKING:
    from collections.abc import Sequence

    Plain: TypeAlias = dict[str, Any]
    Weights: TypeAlias = WeightSetting | Keep | None
    Membrane: TypeAlias = MembraneSetting | Keep | None
    Constant: TypeAlias = ConstantSetting | Keep | None
    ConstantDefault: TypeAlias = ConstantSetting | None
    WeightDefault: TypeAlias = WeightSetting | None
    MembraneDefault: TypeAlias = MembraneSetting | None
else:
    # Which settings there are is known only when a spec is made; `decode` checks them instead of msgspec.
    Weights = Membrane = Constant = WeightDefault = MembraneDefault = ConstantDefault = Any


class Rule(Struct, metaclass=NamedKeys, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings for the modules that `match` names: an exact name, or a pattern `re:...` that matches the whole name.

    A target that is left out (None) keeps the spec's default; "float" leaves the module alone.
    """

    match: str
    weights: Weights = None
    membrane: Membrane = None
    decays: Constant = None
    thresholds: Constant = None
    biases: Constant = None

    if TYPE_CHECKING:

        def __init__(
            self,
            *,
            match: str,
            weights: WeightSetting | Plain | Keep | None = None,
            membrane: MembraneSetting | Plain | Keep | None = None,
            decays: ConstantSetting | Plain | Keep | None = None,
            thresholds: ConstantSetting | Plain | Keep | None = None,
            biases: ConstantSetting | Plain | Keep | None = None,
        ) -> None: ...

    @classmethod
    def one(cls, match: str, target: str, setting: Any) -> Rule:
        """A rule that sets one target."""
        return cls(match=match, **{target: setting})

    def __post_init__(self) -> None:
        _set(self, weights=_weights(self.weights, "weights"), membrane=_membrane(self.membrane, "membrane"))
        _set(self, **{target: _constant(getattr(self, target), target, target) for target in CONSTANT_TARGETS})


class QuantSpec(Struct, metaclass=NamedKeys, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which weights and membranes to quantize.

    Parameters
    ----------
    weights, membrane
        The defaults for every convolution and linear layer, and for every layer of neurons; None leaves them alone.
        Plain dicts are accepted: ``{"method": "lsq", "bits": 4}``.
    decays, thresholds
        The defaults for every layer of isofire's neurons that leaks, or fires: ``{"method": "bitshift"}``,
        ``{"method": "fraction", "bits": 12}``, ``{"method": "fixed", "bits": 8, "fraction": 4}``.
    biases
        The default for every layer with weights that has a bias, under the policy of the first and last layer; batch
        norms keep their offsets.
    rules
        Exceptions. An exact name beats a pattern, an earlier pattern beats a later one, a rule beats the default and
        the policy of the first and last layer.
    first_layer, last_layer
        "float" (LQ-Nets and most of the field) or "quantize".
    reestimate_bn
        When batch-norm statistics are measured anew after post-training quantization: when "weights" were quantized,
        "always" or "never".
    correct
        "bias": while calibrating, a bias of each channel brings its neurons' rates back, layer by layer; "never". See
        `isofire.quantization.by_firing`.

    Raises
    ------
    SpecError
        If a value is out of range, a key is unknown, or settings contradict each other.

    Examples
    --------
    >>> QuantSpec(weights={"method": "lsq", "bits": 4}).weights.bits
    4
    """

    weights: WeightDefault = None
    membrane: MembraneDefault = None
    decays: ConstantDefault = None
    thresholds: ConstantDefault = None
    biases: ConstantDefault = None
    rules: tuple[Rule, ...] = ()
    first_layer: Literal["float", "quantize"] = "float"
    last_layer: Literal["float", "quantize"] = "float"
    reestimate_bn: Literal["weights", "always", "never"] = "weights"
    correct: Literal["never", "bias"] = "never"
    version: int = VERSION

    if TYPE_CHECKING:
        # what is given may be plain, what is read is a setting
        def __init__(
            self,
            *,
            weights: WeightSetting | Plain | None = None,
            membrane: MembraneSetting | Plain | None = None,
            decays: ConstantSetting | Plain | None = None,
            thresholds: ConstantSetting | Plain | None = None,
            biases: ConstantSetting | Plain | None = None,
            rules: Sequence[Rule | Plain] = (),
            first_layer: Literal["float", "quantize"] = "float",
            last_layer: Literal["float", "quantize"] = "float",
            reestimate_bn: Literal["weights", "always", "never"] = "weights",
            correct: Literal["never", "bias"] = "never",
            version: int = VERSION,
        ) -> None: ...

    def __post_init__(self) -> None:
        _set(
            self,
            weights=_weights(self.weights, "weights", keep=False),
            membrane=_membrane(self.membrane, "membrane", keep=False),
            rules=_rules(self.rules),
            **{t: _constant(getattr(self, t), t, t, keep=False) for t in CONSTANT_TARGETS},
        )
        if self.version != VERSION:
            raise SpecError(
                f"spec version must be {VERSION}, got {self.version}; update the file or install its isofire"
            )
        for field in msgspec.structs.fields(type(self)):
            convert(getattr(self, field.name), field.type, field.name)
        if not self.rules and all(getattr(self, target) is None for target in TARGETS):
            raise SpecError("the spec quantizes nothing: give weights, membrane, decays, thresholds, biases or rules")
        if self.correct != "never" and self.reaches("biases"):
            raise SpecError("correct = 'bias' moves biases, so that they cannot be rounded before; leave biases out")

    def reaches(self, target: str) -> bool:
        """Whether the spec says anything about weights, membranes, decays, thresholds or biases."""
        return getattr(self, target) is not None or any(getattr(rule, target) is not None for rule in self.rules)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> QuantSpec:
        """A spec from plain values, as TOML or JSON give them; errors name the place, such as `weights.bits`."""
        if not isinstance(data, dict):
            raise SpecError(f"a spec must be a table, got {type(data).__name__}")
        return convert({**data, "rules": _rules(data.get("rules"))}, cls)

    @classmethod
    def from_toml(cls, path: str | Path) -> QuantSpec:
        """A spec from a TOML file, at its top level or under `[quant]`."""
        data = read_toml(path)
        return cls.from_dict(data.get("quant", data))

    def to_dict(self) -> dict[str, Any]:
        """Plain values, with defaults, but without constants that are left alone; `from_dict` gives the spec back."""
        content = msgspec.to_builtins(self)
        for table in (content, *content["rules"]):
            for target in CONSTANT_TARGETS:
                # specs from before they could be rounded keep their content, and so their hash
                if table[target] is None:
                    del table[target]
            if isinstance(table["membrane"], dict) and table["membrane"].get("levels", "") is None:
                del table["membrane"]["levels"]  # for the same reason
            if isinstance(table["weights"], dict) and table["weights"].get("reconstruct") == 0:
                del table["weights"]["reconstruct"]  # and here
        return content

    def hash(self) -> str:
        """Sixteen hex digits of the content; equal specs have equal hashes, on any machine."""
        content = self.to_dict()
        if self.correct == "never":
            # specs from before there was this key keep their hash
            del content["correct"]
        return hashlib.sha256(msgspec.json.encode(content, order="deterministic")).hexdigest()[:16]


def _set(struct: Struct, **values: Any) -> None:
    for name, value in values.items():
        msgspec.structs.force_setattr(struct, name, value)


def _rules(rules: Any) -> tuple[Rule, ...]:
    if not isinstance(rules, list | tuple | None):
        raise MisfitError("rules", f"must be a list of tables, got {rules!r}")
    return tuple(_rule(rule, f"rules[{i}]") for i, rule in enumerate(rules or ()))


def _rule(rule: Any, place: str) -> Rule:
    if isinstance(rule, Rule):
        return rule
    if not isinstance(rule, dict):
        raise MisfitError(place, f"must be a table {{match = ..., weights = ...}}, got {rule!r}")
    decoded = {
        "weights": _weights(rule.get("weights"), f"{place}.weights"),
        "membrane": _membrane(rule.get("membrane"), f"{place}.membrane"),
        **{target: _constant(rule.get(target), f"{place}.{target}", target) for target in CONSTANT_TARGETS},
    }
    return convert({**rule, **decoded}, Rule, place)


def _weights(value: Any, place: str, *, keep: bool = True) -> Any:
    if value is None or isinstance(value, WeightSetting) or (keep and value == "float"):
        return value
    _refuse_other_kind(value, MembraneSetting, place)
    return decode(value, WEIGHTS, place)


def _membrane(value: Any, place: str, *, keep: bool = True) -> Any:
    if value is None or isinstance(value, MembraneSetting) or (keep and value == "float"):
        return value
    _refuse_other_kind(value, WeightSetting, place)
    return decode(value, MEMBRANES, place, MEMBRANE_DEFAULT)


def _constant(value: Any, place: str, target: str, *, keep: bool = True) -> Any:
    if value is None or (keep and value == "float"):
        return value
    if not isinstance(value, ConstantSetting):
        _refuse_other_kind(value, WeightSetting, place)
        _refuse_other_kind(value, MembraneSetting, place)
        value = decode(value, CONSTANTS, place)
    if target not in value.targets:
        fit = [name for name, kind in CONSTANTS.items() if target in kind.targets]
        raise SpecError(f"{place} takes the methods {', '.join(fit)}, got {value.method!r} (at {place}.method)")
    return value


def _refuse_other_kind(value: Any, kind: type, place: str) -> None:
    if isinstance(value, kind):
        raise MisfitError(place, f"takes no {type(value).__name__}, which is meant for the other target")
