"""Phases of a network in time, told from layers that share one neuron.

Two layers in turn feed each other: what the neuron gave before the other one. Phases do not: one layer leads to every
step and others come beside it in some, or the network sees its input in the first steps and its own spikes later. What
comes in turn again and again could be either; it is phases if the network goes on behind each call as behind the last.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from isofire.adapters.uses import Run, Span


def in_turn(spans: Sequence[Span]) -> int:
    """How many places a neuron is called at in turn, by what runs before its calls; 0 where that does not tell.

    The layers change with a period, or what they are given does.
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
            return period
    return 0


def handed_on(leads: Sequence[tuple[int, bool] | None], on: bool) -> int:
    """How many places a neuron is called at where its spikes come back to it through several layers, or now and then
    through one of its own; 0 where that does not tell.

    Parameters
    ----------
    leads
        `Uses.leads`. Some calls in which others lead to it, and then two or more on its own spikes, are phases; also
        one alone where the network goes on behind each call as behind the last (`on`).
    """
    known = [lead for lead in leads if lead is not None]
    layers, own = {layer for layer, _ in known}, {layer for layer, fed in known if fed}
    if len(layers) < 2 or not own:
        return 0
    comes = [layer in own for layer, _ in known]
    turns = sum(before != after for before, after in pairwise(comes))
    return len(layers) if len(own) > 1 or turns > 1 or (comes[-2:] == [False, True] and not on) else 0


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


def goes_on(name: str, spans: Sequence[Span]) -> bool:
    """Whether the layers that run after the last call, one of them on its spikes, do so after each call."""
    last = _read(spans[-1])
    return any(run.source == (name, 1) for run in last) and all(last <= _read(span) for span in spans[1:-1])


def comes_back(name: str, spans: Sequence[Span]) -> bool:
    """Whether layers other than those behind the last call are given the neuron's last spikes."""
    read = {run.layer for run in _read(spans[-1])}
    return any(run.source == (name, 1) and run.layer not in read for span in spans[1:-1] for run in span.runs)


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
