"""Phases of a network in time, told from layers that share one neuron.

Two layers in turn feed each other: what the neuron gave before the other one. Phases do not: one layer leads to every
step and others come beside it in some, or the network sees its input in the first steps and its own spikes later. What
comes in turn again and again could be either; it is phases if the network goes on behind each call as behind the last.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from torch import Tensor

from isofire.adapters.memory import Held, hold, place

Source = tuple[str, int] | None
"""What a layer was given: the spikes of a neuron, by its name, of so many calls ago, or, under no name, what it was
given so many runs ago, 0 for what it never was; None for unknown."""
View = tuple[int, int, tuple[int, ...], tuple[int, ...]]
"""The part of a memory that a tensor is."""


class Run(NamedTuple):
    """Of a layer."""

    layer: int
    source: Source


class Span(NamedTuple):
    """Layers that ran between two calls of a neuron, in their order, and where what each was given lies."""

    runs: Sequence[Run]
    views: Sequence[View | None]

    @property
    def layers(self) -> set[int]:
        return {run.layer for run in self.runs}


class Uses:
    """What happened in a forward: layers that ran, neurons that were called, and what they gave."""

    def __init__(self) -> None:
        self._held: list[Held] = []
        self._runs: list[Run] = []
        self._views: list[View | None] = []
        # how many layers had run when each neuron was called
        self._calls: dict[str, list[int]] = {}
        # memory -> the neuron that gave it, and in which call
        self._gave: dict[int, tuple[str, int]] = {}
        # how often each layer ran, and when it was last given each thing
        self._count: dict[int, int] = {}
        self._last: dict[tuple[int, View], int] = {}

    def ran(self, layer: int, x: Tensor | None) -> None:
        count = self._count[layer] = self._count.get(layer, 0) + 1
        source, view = None, None
        if x is not None and (at := place(x)) is not None:
            self._held.append(hold(x))
            view = at, int(x.storage_offset()), tuple(x.shape), x.stride()
            if at in self._gave:
                name, call = self._gave[at]
                source = name, len(self._calls[name]) - call
            else:
                source = "", count - self._last.get((layer, view), count)
                self._last[layer, view] = count
        self._runs.append(Run(layer, source))
        self._views.append(view)

    def called(self, name: str) -> None:
        self._calls.setdefault(name, []).append(len(self._runs))

    def gave(self, name: str, output: Sequence[Tensor]) -> None:
        for x in output:
            if (at := place(x)) is not None:
                self._held.append(hold(x))
                self._gave[at] = name, len(self._calls[name]) - 1

    def clear(self) -> None:
        for kept in (self._held, self._runs, self._views, self._calls, self._gave, self._count, self._last):
            kept.clear()

    def spans(self, name: str) -> list[Span]:
        """The layers before each call of a neuron, and after the last."""
        bounds = [0, *self._calls[name], len(self._runs)]
        return [Span(self._runs[start:stop], self._views[start:stop]) for start, stop in pairwise(bounds)]


def in_turn(name: str, spans: Sequence[Span]) -> int:
    """How many places a neuron is called at in turn, by what runs before its calls; 0 where that does not tell.

    The layers change with a period, or what they are given does, and the network does not go on behind each call as it
    does behind the last.
    """
    calls = len(spans) - 1
    # in the first period no spikes are there yet, nor states
    numbers: dict[tuple[Run, ...], int] = {}
    ran = [numbers.setdefault(tuple(span.runs), len(numbers)) for span in spans[1:-1]]
    for period in range(2, calls // 2 + 1):
        start = 0 if calls < 3 * period else period - 1
        if calls % period or ran[start + period :] != ran[start:-period]:
            continue
        if len(set(ran[start:])) > 1 or _by_turns(spans[start + 1].runs, period):
            return 0 if _goes_on(name, spans) else period
    return 0


def are_phases(name: str, spans: Sequence[Span], latest: Sequence[int]) -> bool:
    """Whether a neuron's calls are steps though unlike layers came before them.

    Parameters
    ----------
    spans
        The layers before each call, and after the last.
    latest
        The layer that came last before each call.
    """
    return _one_leads(name, spans[:-1]) or _first_then_own(name, spans[:-1], latest)


def _by_turns(runs: Sequence[Run], period: int) -> bool:
    """Whether a layer is given what it was given so many calls before, and in none since."""
    often = [run.layer for run in runs]
    return any(run.source == ("", period * often.count(run.layer)) for run in runs)


def _goes_on(name: str, spans: Sequence[Span]) -> bool:
    """Whether the layers that run after the last call, one of them on its spikes, do so after each call."""
    last = _read(spans[-1])
    return any(run.source == (name, 1) for run in last) and all(last <= _read(span) for span in spans[1:-1])


def _read(span: Span) -> set[Run]:
    return {Run(layer, source if source and source[0] else None) for layer, source in span.runs}


def _one_leads(name: str, spans: Sequence[Span]) -> bool:
    """Whether one layer comes before each call, the others of a call are those of another call and more, and either it
    is given one thing and they the last spikes, or the other way round."""
    first, *later = spans
    ordered = sorted((span.layers for span in later), key=len)
    if not all(fewer <= more for fewer, more in pairwise(ordered)):
        return False
    others = ordered[-1] - ordered[0]
    for layer in ordered[0] & first.layers:
        if _gets_one(later, layer) and all(_gets_last(name, later, other) for other in others):
            return True
        if _gets_last(name, later, layer) and all(_gets_one(later, other) for other in others):
            return True
    return False


def _first_then_own(name: str, spans: Sequence[Span], latest: Sequence[int]) -> bool:
    """Whether one layer, given one thing, comes before the first calls, and one that is given the last spikes before
    all others; or the other way round."""
    change = next((at for at, layer in enumerate(latest) if layer != latest[0]), 0)
    if not change or not all(layer in span.layers for layer, span in zip(latest, spans, strict=True)):
        return False
    if len(set(latest[change:])) > 1:
        return False
    before, after = (spans[1:change], latest[0]), (spans[change:], latest[-1])
    return (_gets_one(*before) and _gets_last(name, *after)) or (_gets_last(name, *before) and _gets_one(*after))


def _gets_last(name: str, spans: Sequence[Span], layer: int) -> bool:
    """Whether a layer is given the neuron's last spikes alone."""
    sources = {run.source for span in spans for run in span.runs if run.layer == layer}
    return sources == {(name, 1)}


def _gets_one(spans: Sequence[Span], layer: int) -> bool:
    """Whether a layer is given one thing, or each time another part of it, as the frames of a recording are; not
    spikes."""
    given = [(run.source, view) for span in spans for run, view in zip(*span, strict=True) if run.layer == layer]
    if any(source is None or source[0] for source, _ in given):
        return False
    views = {view for _, view in given}
    whole = {view and view[0] for view in views}
    return len(whole) == 1 and len(views) in {1, len(given)}
