"""Phases of a network in time, told from layers that share one neuron.

Two layers in turn feed each other: what the neuron gave before the other one. Phases do not: one layer leads to every
step and others come beside it in some, or the network sees its input in the first steps and its own spikes later.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from isofire.adapters.memory import Held, hold, place

Source = tuple[str, int] | None
"""What a layer was given: the neuron's spikes of so many calls ago, something at a place, or None for unknown."""
Span = dict[int, set[Source]]
"""Of the layers that ran between two calls of a neuron, what each was given."""

_LAST: set[Source] = {("call", 1)}


class Uses:
    """What happened in a forward, in its order: layers that ran, neurons that were called, and what they gave."""

    def __init__(self) -> None:
        # a name without a layer was called, one with places gave something
        self._seen: list[tuple[str, int, tuple[int, ...]]] = []
        self._held: list[Held] = []

    def ran(self, layer: int, x: Tensor | None) -> None:
        self._seen.append(("", layer, self._places([] if x is None else [x])))

    def called(self, name: str) -> None:
        self._seen.append((name, 0, ()))

    def gave(self, name: str, output: Sequence[Tensor]) -> None:
        self._seen.append((name, 1, self._places(output)))

    def clear(self) -> None:
        self._seen.clear()
        self._held.clear()

    def spans(self, name: str) -> list[Span]:
        """The layers before each call of a neuron."""
        spans: list[Span] = []
        given: dict[int, int] = {}
        span: Span = {}
        for who, what, places in self._seen:
            if not who:
                at = next(iter(places), None)
                source = None if at is None else ("call", len(spans) - given[at]) if at in given else ("place", at)
                span.setdefault(what, set()).add(source)
            elif who == name and what:
                given |= dict.fromkeys(places, len(spans) - 1)
            elif who == name:
                spans.append(span)
                span = {}
        return spans

    def _places(self, tensors: Iterable[Tensor]) -> tuple[int, ...]:
        dense = [x for x in tensors if x.layout is torch.strided]
        self._held += map(hold, dense)
        return tuple(map(place, dense))


def are_phases(spans: Sequence[Span], latest: Sequence[int]) -> bool:
    """Whether a neuron's calls are steps though unlike layers came before them.

    Parameters
    ----------
    spans
        The layers before each call.
    latest
        The layer that came last before each call.
    """
    return _one_leads(spans) or _first_then_own(spans, latest)


def _one_leads(spans: Sequence[Span]) -> bool:
    """Whether one layer comes before each call and is given one thing, and the others of a call are those of another
    call and more."""
    first, *later = spans
    ordered = sorted((set(span) for span in later), key=len)
    if not all(fewer <= more for fewer, more in pairwise(ordered)):
        return False
    for layer in ordered[0] & set(first):
        given = _given(later, layer)
        beside = (_given(later, other) for other in ordered[-1] - ordered[0])
        if _is_one_place(given) or (given == _LAST and all(map(_is_one_place, beside))):
            return True
    return False


def _first_then_own(spans: Sequence[Span], latest: Sequence[int]) -> bool:
    """Whether one layer, given one thing, comes before the first calls, and one that is given the last spikes before
    all others; or the other way round."""
    change = next((at for at, layer in enumerate(latest) if layer != latest[0]), 0)
    if not change or not all(layer in span for layer, span in zip(latest, spans, strict=True)):
        return False
    if len(set(latest[change:])) > 1:
        return False
    before, after = _given(spans[1:change], latest[0]), _given(spans[change:], latest[-1])
    return (_is_one_place(before) and after == _LAST) or (before == _LAST and _is_one_place(after))


def _given(spans: Sequence[Span], layer: int) -> set[Source]:
    """What a layer was given where it ran."""
    return set[Source]().union(*(span.get(layer, ()) for span in spans))


def _is_one_place(given: set[Source]) -> bool:
    return len(given) == 1 and all(source is not None and source[0] == "place" for source in given)
