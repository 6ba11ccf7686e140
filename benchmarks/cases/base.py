"""A case: rows that are timed in turns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.measure import Rows, Times
from benchmarks.networks import Given


@dataclass(frozen=True)
class Case:
    """Something to time.

    Parameters
    ----------
    name
        How it is asked for, and the name of its stored result.
    about
        What a run is, and what the base is.
    rows
        Makes the rows; or, with `times_itself`, gives their times.
    rounds, warmup
        Rounds that are counted, and rounds before them that are not.
    """

    name: str
    about: str
    rows: Callable[[Given], Rows | dict[str, Times]]
    rounds: int = 9
    warmup: int = 2
    times_itself: bool = False
