"""How values of a forward pass came from places at which they were before."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple


class Way(NamedTuple):
    """How values came from a place.

    Parameters
    ----------
    times
        How often they were at it, one way after the other.
    changed
        Whether some were changed on the way, by elements.
    call
        Of weights, in which call of them, the last one, values came from there; later ones are larger.
    """

    times: int
    changed: bool = False
    call: tuple[int, int] = (0, 0)


Ways = Mapping[Any, Way]
"""Line, or weights -> how values come from there."""


def together(given: Iterable[Ways]) -> dict[Any, Way]:
    """Of what is made of several."""
    found: dict[Any, Way] = {}
    for ways in given:
        for place, way in ways.items():
            other = found.get(place, way)
            found[place] = Way(
                max(way.times, other.times), way.changed or other.changed, max(way.call, other.call)
            )  # fmt: skip
    return found
