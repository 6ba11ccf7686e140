"""One rule for every verdict: an interval keeps to a limit, breaks it, or cannot tell.

A value keeps to its limit if its whole 95 % interval does, fails if none of it does, and is undecided otherwise. So
nothing passes because too few images were looked at, and nothing fails by what may be noise. `isofire check`, the
tables on the terminal, rows of results, report pages and README take their outcomes, words and marks from here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Literal, get_args

from msgspec import Struct

from isofire.conversion import NamedKeys
from isofire.errors import SpecError

Outcome = Literal["keeps", "fails", "undecided"]
At = Literal["most", "least"]

MARKS: dict[Outcome, str] = {"keeps": "✓", "fails": "✗", "undecided": "?"}
"""What stands for an outcome where there is no room for the word."""

HEADLINE = "emd_weighted"
"""The drift that verdicts are about: EMD, layers weighted by their neurons. See docs/evidence.md for why."""

FLOOR_IMAGES = 1000
"""Images of the image floor. A fixed number, since the floor falls as images grow in number and a limit must not."""


class Margins(Struct, metaclass=NamedKeys, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How much a quantized network may differ and still count as keeping what the baseline does.

    Parameters
    ----------
    accuracy
        Most that accuracy may fall, as a share of images: 0.01 is one point.
    firing
        Most that drift may be, as a multiple of its noise floor.
    """

    accuracy: float = 0.01
    firing: float = 2.0

    def __post_init__(self) -> None:
        check_drop("margin of accuracy", self.accuracy)
        if not 0 <= self.firing < math.inf:
            raise SpecError(f"margin of firing must be a finite multiple of the noise floor, >= 0, got {self.firing}")


def check_drop(name: str, value: float) -> float:
    """A fall of accuracy that may be allowed: a share of images.

    Raises
    ------
    SpecError
        If it is not in 0..1, or 1 itself, which nothing fails; 1 is often meant as a point.
    """
    if not 0 <= value < 1:
        meant = value / 100 if 1 <= value < 100 else 0.01
        points = f"{100 * meant:g} point{'' if meant == 0.01 else 's'}"
        raise SpecError(f"{name} is a share of images, from 0 to below 1, got {value:g}; {points}: {meant:g}")
    return value


def outcome_of(low: float, high: float, limit: float, at: At = "most") -> Outcome:
    """What an interval says of a limit that a value may be at most, or at least; NaN ends leave it undecided.

    Raises
    ------
    SpecError
        If `at` is neither.

    Examples
    --------
    >>> outcome_of(0.1, 0.2, 0.2), outcome_of(0.1, 0.2, 0.15), outcome_of(0.1, 0.2, 0.05)
    ('keeps', 'undecided', 'fails')
    """
    if at not in get_args(At):
        raise SpecError(f"at must be one of {', '.join(map(repr, get_args(At)))}, got {at!r}")
    if math.isnan(low) or math.isnan(high):
        return "undecided"
    if at == "least":
        return "keeps" if low >= limit else "fails" if high < limit else "undecided"
    return "keeps" if high <= limit else "fails" if low > limit else "undecided"


def together(outcomes: Iterable[Outcome]) -> Outcome:
    """Fails if any does, else undecided if any is, else keeps.

    Examples
    --------
    >>> together(["keeps", "undecided"]), together(["undecided", "fails"])
    ('undecided', 'fails')
    """
    found = set(outcomes)
    return "fails" if "fails" in found else "undecided" if "undecided" in found else "keeps"
