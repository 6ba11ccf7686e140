"""The register of measures, which everything else loops over, and the values that they make."""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

from isofire.errors import SpecError
from isofire.firing.measures.built_in import BUILT_IN
from isofire.firing.measures.record import CHANGE, FP, Combine, Measure, Place
from isofire.registry import Registry


class Quantity(NamedTuple):
    """A value that rows, intervals and floors know by a name of its own.

    Parameters
    ----------
    measure
        The measure behind it.
    part
        "value", "baseline" or "change".
    combine
        How layers are combined; None for a layer's own value.
    """

    measure: Measure
    part: Literal["value", "baseline", "change"]
    combine: Combine | None

    @property
    def title(self) -> str:
        """What it is, in words."""
        combined = {"layers": ", mean over layers", "max": ", worst layer", "pooled": ", all neurons pooled"}
        said = self.measure.title + combined.get(self.combine or "", "")
        return {"value": said, "baseline": f"the baseline's {said}", "change": f"change of the {said}"}[self.part]

    @property
    def bounds(self) -> tuple[float, float]:
        """What it can be at all."""
        low, high = self.measure.low, self.measure.high
        return (low - high, high - low) if self.part == "change" else (low, high)

    @property
    def has_floor(self) -> bool:
        """Whether there is such a thing without quantization: a distance, or a change of one network's measure."""
        return self.measure.distance or self.part == "change"


def register_measure(measure: Measure) -> Measure:
    """Add a measure, for this process: every comparison, floor, row, table, report and limit has it from then on.

    An installed package does the same through an entry point of the group `isofire.measures`.

    Raises
    ------
    SpecError
        If it is no `Measure`, or one of its names is taken.
    """
    if not isinstance(measure, Measure):
        raise SpecError(f"a measure must be an isofire.firing.Measure, got {type(measure).__name__}")
    MEASURES.register(measure.name, measure)
    return measure


def quantities(layer: bool) -> dict[str, Quantity]:
    """Every value of a layer, or else of a whole network, by name, with NAME_fp and NAME_change where there are."""
    found: dict[str, Quantity] = {}
    for measure in MEASURES.values():
        for name, combine in ({measure.name: None} if layer else measure.overall).items():
            found[name] = Quantity(measure, "value", combine)
            if measure.networks == 1:
                found[name + FP] = Quantity(measure, "baseline", combine)
                found[name + CHANGE] = Quantity(measure, "change", combine)
    return found


def quantity(name: str) -> tuple[str, Quantity]:
    """A value of a whole network by its name, or by the name of its measure, which stands for its first column.

    Returns
    -------
    tuple
        Its own name, and what it is.

    Raises
    ------
    SpecError
        If no measure has such a value; lists those there are.

    Examples
    --------
    >>> quantity("emd")[0], quantity("dead_05_change")[1].part
    ('emd_weighted', 'change')
    """
    known = quantities(layer=False)
    if name not in known:
        if name not in MEASURES:
            raise MEASURES.unknown(name, dict.fromkeys((*known, *MEASURES)))
        name = MEASURES[name].headline
    return name, known[name]


def columns() -> tuple[str, ...]:
    """The columns of all measures in a row of results; those of the baseline's shares come last."""
    found = [(name, measure) for measure in MEASURES.values() for name in measure.columns]
    return tuple(name for name, _ in sorted(found, key=lambda item: item[1].unit == "" and item[0].endswith(FP)))


def shown_in(place: Place) -> list[Measure]:
    """The measures that are shown in a place.

    Raises
    ------
    SpecError
        If there is no such place.
    """
    if place not in get_args(Place):
        raise SpecError(f"place must be one of {', '.join(map(repr, get_args(Place)))}, got {place!r}")
    return [measure for measure in MEASURES.values() if place in measure.shown]


def _fit(name: str, thing: object) -> Measure:
    if not isinstance(thing, Measure):
        raise SpecError(f"a measure must be an isofire.firing.Measure, got {type(thing).__name__} ({name!r})")
    if thing.name != name:
        raise SpecError(f"a measure is registered under its own name {thing.name!r}, got {name!r}")
    known = MEASURES.registered
    others = {other.name: _names(other) for other in known.values() if other is not thing}
    for other, taken in {**others, "": _RESERVED}.items():
        if clash := sorted(taken & _names(thing)):
            whose = f"the measure {other!r} of {MEASURES.owner(other)}" if other else "every comparison"
            raise SpecError(
                f"{clash[0]!r}, a value of measure {name!r}, is the name of a value of {whose}; choose another name"
            )
    distances = {other.name for other in (*BUILT_IN, *known.values(), thing) if other.distance}
    for part in thing.between or ():
        if part not in distances:
            raise SpecError(f"between must name two distances, {part!r} is none (measure {name!r})")
    return thing


def _names(measure: Measure) -> set[str]:
    names = {measure.name, *measure.overall}
    return names | {name + end for name in names for end in (FP, CHANGE) if measure.networks == 1}


_RESERVED = frozenset(
    {"layer", "neurons", "transitions", "n_images", "T", "accuracy", "accuracy_fp", "agreement", "values"}
)
"""Values of a comparison that no measure makes."""


def _home(measure: Measure) -> str:
    # a record is of isofire's class, whoever made it; its function tells
    return str(getattr(getattr(measure.of, "func", measure.of), "__module__", ""))


MEASURES: Registry[Measure] = Registry("measure of firing", "isofire.measures", _fit, _home)
"""All measures by name, isofire's own first."""

for _measure in BUILT_IN:
    register_measure(_measure)
