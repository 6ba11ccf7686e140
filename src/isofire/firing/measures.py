"""What is measured of firing: a record a measure, and the register that everything else loops over.

A measure is a function of one network's firing (the rate, the share of dead neurons) or of two (a distance). Its record
says all that the rest has to know of it: how layers are combined, in which bounds it lies, which way is worse, how
noise bends it, and how tables show it. Recordings, intervals, noise floors, rows, tables, reports and limits take their
measures from `MEASURES`; a measure that is registered goes through all of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from isofire.errors import SpecError
from isofire.firing.distance import emd_from_counts, spearman
from isofire.firing.rates import PAPER_CUT, is_dead
from isofire.registry import Registry

RATE_UNIT = "spikes per neuron per step"
FP, CHANGE = "_fp", "_change"
"""Endings of a measure of one network: the baseline's value, and the quantized network's minus the baseline's."""

Combine = Literal["neurons", "layers", "max", "pooled"]
Step = Literal["neuron", "spikes"]
Place = Literal["layers", "rows", "report", "maps"]


@dataclass(frozen=True, eq=False)
class Firing:
    """Spikes of the neurons of one network, of a layer or of all layers.

    Parameters
    ----------
    counts
        Spikes of each neuron over all images and steps: [n], whole numbers of an integer or floating type. Only in the
        world with unchanged rates that `isofire.firing.evidence` draws from may they be fractions, >= 0.
    denominator
        T * images.
    """

    counts: NDArray[Any]
    denominator: int

    @cached_property
    def rates(self) -> NDArray[np.float64]:
        """Rates [n], in spikes per neuron per step."""
        return self.counts / self.denominator


@dataclass(frozen=True, kw_only=True, eq=False)
class Measure:
    """One measure of firing.

    Parameters
    ----------
    name
        An identifier; the column of rows and the key of intervals. A measure of one network also has NAME_fp (the
        baseline's) and, in intervals and floors, NAME_change.
    title
        What it is, in a few words, for captions and errors.
    of
        The value of a layer: `of(firing)` for a measure of one network, `of(baseline, quantized)` for one of two, each
        a `Firing`; NaN where it does not exist.
    networks
        1 or 2.
    unit
        "" for a share or another plain number.
    overall
        Column of the whole network -> how its layers are combined: "neurons" (mean weighted by neurons), "layers"
        (mean, each layer counting alike), "max" (the largest), "pooled" (`of` over all neurons thrown together). Under
        its own name by neurons, if left out.
    low, high
        What it can be at all.
    worse
        Which way is worse: "higher", "lower", or None where neither is.
    distance
        Whether it is 0 for unchanged rates and positive otherwise.
    paired
        Whether it follows each neuron from the baseline to the quantized network. Networks of different seeds have no
        such measure.
    mean
        Whether it is a mean over images, so that its expected value is the same for any number of them.
    step
        In which steps it moves: of one "neuron" (a share of neurons), or of two "spikes" (a sum of absolute differences
        less another of the same spikes); None of others. Its interval is one step longer on either side.
    between
        (lower, upper): two norms of the neurons' changes of rate, by the names of their measures, between which it lies
        whatever the rates are; so much is known of it for true rates. None if there are none.
    slow
        Whether it takes much of the time of an interval, so that it is left out unless it is asked for.
    heading, digits, percent
        For tables: the column's heading (the name, if left out), decimals, and whether it is printed as a percentage.
    shown
        Where it is shown: as a column of the tables of "layers" (of a comparison), of "rows" (of results) and of a
        "report", and, where it is of first rank, as a heat map of a report and in one of two sweeps ("maps").

    Raises
    ------
    SpecError
        If a value is none of those named, or they contradict each other.

    Examples
    --------
    >>> largest = Measure(
    ...     name="largest_change",
    ...     title="largest rate change of a neuron",
    ...     of=lambda before, after: float(abs(after.rates - before.rates).max()),
    ...     unit=RATE_UNIT,
    ...     overall={"largest_change": "max"},
    ...     distance=True,
    ... )
    >>> largest.columns
    ('largest_change',)
    """

    name: str
    title: str
    of: Callable[..., float]
    networks: Literal[1, 2] = 2
    unit: str = ""
    overall: Mapping[str, Combine] = field(default_factory=dict)
    low: float = 0.0
    high: float = math.inf
    worse: Literal["higher", "lower"] | None = "higher"
    distance: bool = False
    paired: bool = True
    mean: bool = False
    step: Step | None = None
    between: tuple[str, str] | None = None
    slow: bool = False
    heading: str = ""
    digits: int = 4
    percent: bool = False
    shown: Sequence[Place] = ("layers", "rows", "report")

    def __post_init__(self) -> None:
        defaults = {
            "overall": self.overall or {self.name: "neurons"},
            "heading": self.heading or self.name,
        }
        for key, value in defaults.items():
            object.__setattr__(self, key, value)
        self._check()

    @property
    def endings(self) -> tuple[str, ...]:
        """What its names end in: "" for its value, and of one network "_fp" for the baseline's."""
        return ("",) if self.networks == 2 else ("", FP)

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of its values of a whole network in a row of results."""
        return tuple(name + end for name in self.overall for end in self.endings)

    @property
    def headline(self) -> str:
        """The first of its columns, the one that a table shows."""
        return next(iter(self.overall))

    @property
    def unchanged(self) -> float | None:
        """Its value where no neuron changed its rate: 0 of a distance, `high` of a likeness; None of other measures."""
        if self.distance:
            return 0.0
        return self.high if self.networks == 2 and self.worse == "lower" and self.high < math.inf else None

    def layer_values(self, baseline: Firing, quantized: Firing) -> dict[str, float]:
        """Its values by name, of a layer or of all neurons pooled."""
        if self.networks == 2:
            return {self.name: float(self.of(baseline, quantized))}
        return {self.name: float(self.of(quantized)), self.name + FP: float(self.of(baseline))}

    def text(self, value: float | None) -> str:
        """A value as tables print it; a dash for none."""
        if value is None or math.isnan(value):
            return "-"
        return f"{100 * value:.{self.digits}f}" if self.percent else f"{value:.{self.digits}f}"

    def _check(self) -> None:
        where = f"measure {self.name!r}"
        choices = [("networks", self.networks, (1, 2))]
        choices += [("step", self.step, (*get_args(Step), None))]
        choices += [("worse", self.worse, ("higher", "lower", None))]
        choices += [("overall", how, get_args(Combine)) for how in self.overall.values()]
        choices += [("shown", place, get_args(Place)) for place in self.shown]
        for key, value, known in choices:
            if value not in known:
                raise SpecError(f"{key} must be one of {', '.join(map(repr, known))}, got {value!r} ({where})")
        if not callable(self.of):
            raise SpecError(f"of must be a function of firing, got {self.of!r} ({where})")
        if not self.low < self.high:
            raise SpecError(f"low must be below high, got {self.low} and {self.high} ({where})")
        if self.distance and (self.networks == 1 or self.low != 0 or self.worse != "higher"):
            raise SpecError(f"a distance is of two networks, from 0 on, and worse where higher ({where})")
        if wrong := [name for name in self.overall if not name.isidentifier() or name.endswith((FP, CHANGE))]:
            raise SpecError(
                f"a column must be an identifier without the ending {FP} or {CHANGE}, got {wrong[0]!r} ({where})"
            )


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
    MEASURES.register(getattr(measure, "name", measure), measure)  # type: ignore[arg-type]
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
        If no measure has such a value.

    Examples
    --------
    >>> quantity("emd")[0], quantity("dead_05_change")[1].part
    ('emd_layer_mean', 'change')
    """
    known = quantities(layer=False)
    if name not in known:
        name = MEASURES[name].headline
    return name, known[name]


def columns() -> tuple[str, ...]:
    """The columns of all measures in a row of results; those of the baseline's shares come last."""
    found = [(name, measure) for measure in MEASURES.values() for name in measure.columns]
    return tuple(name for name, _ in sorted(found, key=lambda item: item[1].unit == "" and item[0].endswith(FP)))


def shown_in(place: Place) -> list[Measure]:
    """The measures that are shown in a place."""
    return [measure for measure in MEASURES.values() if place in measure.shown]


def _fit(name: str, thing: object) -> Measure:
    if not isinstance(thing, Measure):
        raise SpecError(f"a measure must be an isofire.firing.Measure, got {type(thing).__name__} ({name!r})")
    if thing.name != name:
        raise SpecError(f"a measure is registered under its own name {thing.name!r}, got {name!r}")
    known = MEASURES.registered
    taken = {key for other in known.values() if other is not thing for key in _names(other)} | _RESERVED
    if clash := sorted(taken & _names(thing)):
        raise SpecError(f"{clash[0]!r}, a value of measure {name!r}, is the name of another value; choose another name")
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

MEASURES: Registry[Measure] = Registry("measure of firing", "isofire.measures", _fit)
"""All measures by name, isofire's own first."""


def _mfr(firing: Firing) -> float:
    return int(firing.counts.sum()) / (firing.denominator * firing.counts.size)


def _dead(cut: float) -> Callable[[Firing], float]:
    return lambda firing: float(is_dead(firing.rates, cut).mean())


def _emd(baseline: Firing, quantized: Firing) -> float:
    return emd_from_counts(baseline.counts, quantized.counts, baseline.denominator, quantized.denominator)


def _paired(baseline: Firing, quantized: Firing) -> float:
    unit = baseline.denominator * baseline.counts.size
    return int(np.abs(quantized.counts - baseline.counts).sum()) / unit


def _shift(baseline: Firing, quantized: Firing) -> float:
    unit = baseline.denominator * baseline.counts.size
    return abs(int(quantized.counts.sum()) - int(baseline.counts.sum())) / unit


def _shape(baseline: Firing, quantized: Firing) -> float:
    return _emd(baseline, quantized) - _shift(baseline, quantized)


def _reshuffle(baseline: Firing, quantized: Firing) -> float:
    return _paired(baseline, quantized) - _emd(baseline, quantized)


def _spearman(baseline: Firing, quantized: Firing) -> float:
    return spearman(baseline.rates, quantized.rates)


def _dead_share(name: str, cut: float, shown: Sequence[Place] = ()) -> Measure:
    said = "neurons that never fire" if cut == 0 else f"neurons with a rate below {cut:g}"
    return Measure(
        name=name, title=f"share of {said}", of=_dead(cut), networks=1, high=1.0, step="neuron", heading="dead %",
        digits=1, percent=True, shown=shown,
    )  # fmt: skip


CUTS = {"dead_00": 0.0, "dead_01": 0.01, "dead_05": PAPER_CUT}
"""Dead share -> the rate below which a neuron is dead."""

BUILT_IN = (
    Measure(
        name="mfr", title="mean firing rate", of=_mfr, networks=1, unit=RATE_UNIT, worse=None, mean=True,
        heading="rate", shown=("layers", "rows", "report", "maps"),
    ),
    *(_dead_share(name, cut, get_args(Place) if cut == PAPER_CUT else ()) for name, cut in CUTS.items()),
    Measure(
        name="emd", title="earth mover's distance of the rates", of=_emd, unit=RATE_UNIT,
        overall={"emd_layer_mean": "layers", "emd_weighted": "neurons", "emd_pooled": "pooled", "emd_max": "max"},
        distance=True, paired=False, between=("shift", "paired_mae"), heading="EMD", digits=5,
        shown=("layers", "rows", "report", "maps"),
    ),
    Measure(
        name="paired_mae", title="mean absolute rate change of a neuron", of=_paired, unit=RATE_UNIT, distance=True,
        between=("paired_mae", "paired_mae"), heading="paired", shown=("rows", "report"),
    ),
    Measure(
        name="shift", title="change of the mean rate, without its sign", of=_shift, unit=RATE_UNIT, distance=True,
        paired=False, between=("shift", "shift"), digits=5, shown=("layers",),
    ),
    Measure(
        name="shape", title="EMD less shift: the distribution changed its form", of=_shape, unit=RATE_UNIT,
        distance=True, paired=False, step="spikes", digits=5, shown=("layers",),
    ),
    Measure(
        name="reshuffle", title="paired change less EMD: neurons swapped rates", of=_reshuffle, unit=RATE_UNIT,
        distance=True, step="spikes", heading="shuffle", digits=5, shown=("layers",),
    ),
    Measure(
        name="spearman", title="Spearman's rank correlation of rates, within layers", of=_spearman, low=-1.0, high=1.0,
        worse="lower", slow=True, heading="rank r", digits=2, shown=("layers", "rows"),
    ),
)  # fmt: skip
"""The measures that `isofire.firing.evidence` resamples all at once, from histograms that they share."""

for _measure in BUILT_IN:
    register_measure(_measure)
