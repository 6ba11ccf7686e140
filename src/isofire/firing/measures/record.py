"""What a measure of firing says of itself: its function, how layers are combined, its bounds, how tables show it."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from isofire.errors import DataError, IsofireError, SpecError

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
        world with unchanged rates that `isofire.firing.evidence` draws from may they be fractions, >= 0. They may be
        above `denominator`, since some neurons fire several spikes a step; a rate may be above 1.
    denominator
        T * images.

    Raises
    ------
    DataError
        If the counts are not [n] with n >= 1, one is negative or NaN, or the denominator is below 1.
    """

    counts: NDArray[Any]
    denominator: int

    def __post_init__(self) -> None:
        if not (isinstance(self.counts, np.ndarray) and self.counts.ndim == 1 and self.counts.size):
            raise DataError(f"counts must be an array [n] of spikes a neuron, n >= 1, got {self.counts!r}")
        if not self.counts.min() >= 0:
            raise DataError(f"counts must be >= 0, got {self.counts.min()} at neuron {int(self.counts.argmin())}")
        if not self.denominator >= 1:
            raise DataError(f"the denominator must be T * images >= 1, got {self.denominator}")

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
        The value of a layer, a number: `of(firing)` for a measure of one network, `of(baseline, quantized)` for one of
        two, each a `Firing`; NaN where it does not exist.
    networks
        1 or 2.
    unit
        "" for a share or another plain number.
    overall
        Column of the whole network -> how its layers are combined: "neurons" (mean weighted by neurons), "layers"
        (mean, each layer counting alike), "max" (the largest), "pooled" (`of` over all neurons thrown together). Under
        its own name by neurons, if left out.
    low, high
        What it can be at all; of spikes that were recorded, another value is an error.
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

    def layer_values(
        self, baseline: Firing, quantized: Firing, place: str = "all neurons", drawn: bool = False
    ) -> dict[str, float]:
        """Its values by name, of a layer or of all neurons pooled; parameters as in `value`."""
        if self.networks == 2:
            return {self.name: self.value(baseline, quantized, place=place, drawn=drawn)}
        return {
            self.name: self.value(quantized, place=place, drawn=drawn),
            self.name + FP: self.value(baseline, place=place, drawn=drawn),
        }

    def value(self, *firing: Firing, place: str = "all neurons", drawn: bool = False) -> float:
        """What `of` gives for the spikes of one network or two.

        Parameters
        ----------
        place
            Whose spikes they are, for errors.
        drawn
            Whether they were drawn, not recorded: rates that are moved may leave what firing can be, and so `low` and
            `high`.

        Raises
        ------
        SpecError
            If the function fails, or gives no number, or one that the measure says it cannot be.
        """
        where = f"measure {self.name!r} of {place}"
        try:
            found: Any = self.of(*firing)
        except IsofireError:
            raise
        except Exception as error:
            raise SpecError(f"the function of {where} failed: {type(error).__name__}: {error}; mend it") from error
        if not hasattr(found, "__float__") or getattr(found, "ndim", 0):
            raise SpecError(f"the function of {where} must give a number, got {type(found).__name__}; mend it")
        value = float(found)
        # a few roundings beyond a bound are none
        low, high = (bound + side * 1e-9 * max(1.0, abs(bound)) for bound, side in ((self.low, -1), (self.high, 1)))
        if math.isinf(value) or not (drawn or math.isnan(value) or low <= value <= high):
            raise SpecError(
                f"the function of {where} gave {value:g}, but the measure says it is finite and from {self.low:g} to "
                f"{self.high:g}{', as a distance is' if self.distance else ''}; mend the function, or low and high"
            )
        return value

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
        if not _takes(self.of, self.networks):
            names = ("firing",) if self.networks == 1 else ("baseline", "quantized")
            raise SpecError(f"of must take ({', '.join(names)}), got {inspect.signature(self.of)} ({where})")
        for name in (self.name, *self.overall):
            if not (isinstance(name, str) and name.isidentifier() and name.isascii()) or name.endswith((FP, CHANGE)):
                raise SpecError(
                    f"a column must be an identifier of ASCII letters without the ending {FP} or {CHANGE}, which the "
                    f"baseline's values and changes have, got {name!r} ({where})"
                )


def _takes(function: Callable[..., Any], arguments: int) -> bool:
    try:
        inspect.signature(function).bind(*range(arguments))
    except ValueError:
        # compiled functions may have no signature
        return True
    except TypeError:
        return False
    return True
