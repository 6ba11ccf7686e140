"""What happened in a forward between the calls of its neurons: which layers ran, and on what."""

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


class Lead(NamedTuple):
    """Of a call of a neuron whose input comes through modules alone, the first of these layers."""

    layer: int
    spikes: tuple[str, int] | None
    """Whose spikes it was given, and of which call; None for anything else."""


class Span(NamedTuple):
    """Layers that ran between two calls of a neuron, in their order, and where what each was given lies."""

    runs: Sequence[Run]
    views: Sequence[View | None]

    @property
    def layers(self) -> set[int]:
        return {run.layer for run in self.runs}

    def of(self, layer: int) -> Span:
        """One layer's runs."""
        own = [at for at, run in enumerate(self.runs) if run.layer == layer]
        return Span([self.runs[at] for at in own], [self.views[at] for at in own])


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
        # memory -> what layers made it of, and where the last layer's input lies
        self._made: dict[int, Lead] = {}
        self._input: int | None = None
        self._leads: dict[str, list[Lead | None]] = {}

    def ran(self, layer: int, x: Tensor | None) -> None:
        count = self._count[layer] = self._count.get(layer, 0) + 1
        source, view = None, None
        self._input = at = None if x is None else place(x)
        if x is not None and at is not None:
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

    def made(self, output: Sequence[Tensor]) -> None:
        """What the layer that ran last, a module, gave."""
        if self._input is None:
            return
        lead = self._made.get(self._input) or Lead(self._runs[-1].layer, self._gave.get(self._input))
        for x in output:
            # a view is what it was
            if (at := place(x)) is not None and at != self._input:
                self._held.append(hold(x))
                self._made[at] = lead

    def called(self, name: str, x: Tensor | None) -> None:
        self._calls.setdefault(name, []).append(len(self._runs))
        at = None if x is None else place(x)
        self._leads.setdefault(name, []).append(None if at is None else self._made.get(at))

    def leads(self, name: str) -> list[tuple[int, bool] | None]:
        """Of each call the layer that leads to it, and whether that was given the neuron's last spikes."""
        return [lead and (lead.layer, lead.spikes == (name, at - 1)) for at, lead in enumerate(self._leads[name])]

    def gave(self, name: str, output: Sequence[Tensor]) -> None:
        for x in output:
            if (at := place(x)) is not None:
                self._held.append(hold(x))
                self._gave[at] = name, len(self._calls[name]) - 1

    def clear(self) -> None:
        self._input = None
        for kept in (self._held, self._runs, self._views, self._calls, self._gave, self._count, self._last, self._made,
                     self._leads):  # fmt: skip
            kept.clear()

    def spans(self, name: str) -> list[Span]:
        """The layers before each call of a neuron, and after the last."""
        bounds = [0, *self._calls[name], len(self._runs)]
        return [Span(self._runs[start:stop], self._views[start:stop]) for start, stop in pairwise(bounds)]
