"""What a measure of firing says of itself: its function, how layers are combined, its bounds, how tables show it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from isofire.errors import SpecError

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
        An identifier of ASCII letters, without the ending _fp or _change; the column of rows and the key of intervals.
        A measure of one network also has NAME_fp (the baseline's) and, in intervals and floors, NAME_change.
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
    ...     name="largest",
    ...     title="largest rate change of a neuron",
    ...     of=lambda before, after: float(abs(after.rates - before.rates).max()),
    ...     unit=RATE_UNIT,
    ...     overall={"largest": "max"},
    ...     distance=True,
    ... )
    >>> largest.columns
    ('largest',)
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
        if not isinstance(self.name, str):
            raise SpecError(f"the name of a measure must be an identifier, got {self.name!r}")
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
        for name in (self.name, *self.overall):
            if not (isinstance(name, str) and name.isidentifier() and name.isascii()) or name.endswith((FP, CHANGE)):
                raise SpecError(
                    "a column must be an identifier of ASCII letters without the endings that columns made of it have "
                    f"({FP}, {CHANGE}), got {name!r} ({where})"
                )
