"""What a quantized network has to keep to."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from msgspec import Struct, field
from msgspec.structs import force_setattr

from isofire.conversion import NamedKeys, shown
from isofire.errors import SpecError
from isofire.firing.evidence.outcome import check_drop
from isofire.firing.measures import FP, quantity


class Limits(Struct, metaclass=NamedKeys, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a quantized network has to keep to; None does not look at it.

    Parameters
    ----------
    accuracy_drop
        Most that accuracy may fall, as a share of images: 0.01 is one point.
    drift
        Most that EMD (weighted by neurons) may be, as a multiple of its noise floor.
    dead_share
        Most neurons with a rate below 0.05, as a share of all.
    synops
        Most synaptic operations, as a multiple of the baseline's: 1.1 is ten per cent more.
    state_bytes
        Most memory for membrane states, in bytes.
    most, least
        Most or least that a measure may be, by the name of a column of `isofire.firing.MEASURES` ("dead_00",
        "emd_max", "mfr_change"), or of a measure, which stands for its first column ("emd").
    multiples
        Most that a distance may be, as a multiple of its noise floor; `drift` is that of "emd_weighted".

    Raises
    ------
    SpecError
        If there is none, or one is no number that it can be. What `float` takes (NumPy's and torch's numbers, decimals)
        becomes a float.
    """

    accuracy_drop: float | None = None
    drift: float | None = None
    dead_share: float | None = None
    synops: float | None = None
    state_bytes: float | None = None
    most: dict[str, float] = field(default_factory=dict)
    least: dict[str, float] = field(default_factory=dict)
    multiples: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, value in self.named.items():
            force_setattr(self, name, _number(name, value))
        for kind in ("most", "least", "multiples"):
            if not isinstance(by_name := getattr(self, kind), Mapping):
                example = '{"spearman": 0.9}' if kind == "least" else '{"emd": 0.1}'
                raise SpecError(
                    f"limits of measures must be a dictionary by their names, {kind} is {shown(by_name)}; write "
                    f"{kind}={example}"
                )
            force_setattr(self, kind, {name: _number(f"{kind}[{name!r}]", value) for name, value in by_name.items()})
        given = self.named
        if not (given or self.most or self.least or self.multiples):
            raise SpecError(f"at least one limit is needed, of {', '.join(self.__struct_fields__)}")
        for name, value in given.items():
            if name == "accuracy_drop":
                check_drop(name, value)
            else:
                _within(name, value, 0.0, 1.0 if name == "dead_share" else math.inf)
        for name, value in self.most.items():
            _of_measure(name, value, "least", "lower")
        for name, value in self.least.items():
            _of_measure(name, value, "most", "higher")
        for name, value in self.multiples.items():
            _within(name, value, 0.0, math.inf)
            if not quantity(name)[1].has_floor:
                raise SpecError(f"{name} has no noise floor to be a multiple of; name a distance, or a NAME_change")

    @property
    def of_firing(self) -> bool:
        """Whether a limit is about firing, or about what follows from it."""
        return bool(set(self.named) - {"accuracy_drop", "state_bytes"} or self.most or self.least or self.multiples)

    @property
    def needs_probe(self) -> bool:
        """Whether operations of a forward pass have to be followed for it, as `observe_together` does to `probe`: of
        firing too, for spikes that are in no rate."""
        return self.of_firing or self.state_bytes is not None

    @property
    def named(self) -> dict[str, float]:
        """The limits that have a name of their own, in their order."""
        names = ("accuracy_drop", "drift", "dead_share", "synops", "state_bytes")
        return {name: value for name in names if (value := getattr(self, name)) is not None}


def _number(name: str, value: Any) -> float:
    """As a float, which every file can hold."""
    try:
        # NumPy's and torch's know what they hold: a number, a truth value, a text
        plain = value.item() if hasattr(value, "item") else value
        if not isinstance(plain, (bool, str, bytes, bytearray)):
            return float(plain)
    except (TypeError, ValueError, OverflowError, RuntimeError):
        pass
    raise SpecError(
        f"a limit must be a number, {name} is {shown(value)}; numbers are not in quotes, nor in lists or truth values"
    )


def _of_measure(name: str, value: float, other: str, better: str) -> None:
    key, asked = quantity(name)
    if asked.part == "baseline":
        raise SpecError(f"a limit is for the quantized network, {name} is the baseline's; leave {FP} out")
    if asked.measure.worse == better:
        raise SpecError(f"a {better} {key} is worse, so a limit is the {other} that it may be, got {value}")
    _within(name, value, *asked.bounds)


def _within(name: str, value: float, low: float, high: float) -> None:
    if not (math.isfinite(value) and low <= value <= high):
        lower = "" if low == -math.inf else f" >= {low:g}"
        upper = "" if high == math.inf else f" and <= {high:g}{', a share' if high == 1 else ''}"
        raise SpecError(f"a limit must be a finite number{lower}{upper}, {name} is {value}")
