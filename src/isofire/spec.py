"""What to quantize, and how: frozen, versioned values with a content hash, from Python, TOML or JSON."""

from __future__ import annotations

import difflib
import hashlib
from pathlib import Path
from typing import Any, Literal, get_args

import msgspec
from msgspec import Struct

from isofire.errors import SpecError
from isofire.settings import (
    LQNetWeights,
    LSQWeights,
    MembraneSetting,
    TaWQWeights,
    UniformMembrane,
    UniformWeights,
    WeightSetting,
)
from isofire.toml_json import read_toml

__all__ = [
    "LQNetWeights",
    "LSQWeights",
    "MembraneSetting",
    "QuantSpec",
    "Rule",
    "TaWQWeights",
    "UniformMembrane",
    "UniformWeights",
    "WeightSetting",
]

VERSION = 1

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
            "rules": tuple(_convert(rule, Rule, f"rules[{i}]") for i, rule in enumerate(self.rules or ())),
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
    except TypeError as error:
        raise SpecError(f"values must be plain numbers, text, lists or tables (at {place}): {error}") from error
    except msgspec.ValidationError as error:
        text = str(error)
        where = text.rsplit(" - at `", 1)
        path = f"{place}{where[1].rstrip('`').removeprefix('$')}" if len(where) == 2 else place
        raise SpecError(f"{where[0]} (at {path}){_cure(where[0], path)}") from error


_CHOICES: dict[str, str] = {
    "method": "weights: uniform, lsq, lqnet or tawq; membrane: uniform",
    "grid": "endpoint, midtread, twos_complement or midrise",
    "range": "[low, high], minmax, percentile, ksigma, mse or, for weights, aciq",
    "placement": "pre_fire or post_reset",
    "granularity": "tensor or channel",
    "ste": "plain or clipped",
    "distribution": "gaussian or laplace",
    "scale": "inverse_density or mse",
    "init": "mse or mean for lsq, data or official for lqnet",
    "first_layer": "float or quantize",
    "last_layer": "float or quantize",
    "reestimate_bn": "weights, always or never",
}


_KEYS = sorted(
    {name for kind in (*get_args(WeightSetting), MembraneSetting, QuantSpec) for name in kind.__struct_fields__}
)


def _cure(text: str, path: str) -> str:
    if "unknown field" in text:
        wrong = text.rpartition("unknown field `")[2].rstrip("`")
        close = difflib.get_close_matches(wrong, _KEYS, n=1)
        # another method may take just this key
        hint = f"did you mean {close[0]!r}? " if close and close[0] != wrong else ""
        return f"; {hint}docs/spec.md has the keys that this method takes"
    field = path.rsplit(".", 1)[-1]
    return f"; {field} is {_CHOICES[field]}" if "Invalid" in text and field in _CHOICES else ""
