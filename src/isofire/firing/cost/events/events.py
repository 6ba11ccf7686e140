"""What the trace knows of a tensor: where its values come from, and how many events each of its elements stands for.

An event is a spike on its way to the next weights. Sums add events up, an average passes every one of them on, a fixed
factor that is no whole number leaves their number alone (it can be folded into the weights). So an element is not what
its value says, and its events are kept beside it, in memory laid out as the tensor's own: a view of the tensor is a
view of its events, and what is written into a part of it is written there too.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from enum import IntEnum

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from isofire.firing.cost.events.axes import Axes, Digits, axes_of, digits_beside, digits_of, forms_of
from isofire.firing.cost.events.forms import SIGN, Form, Forms, beside, mixed, uneven
from isofire.firing.cost.events.ways import Ways, together
from isofire.running import stored_values

_SWEEP = 64


class Source(IntEnum):
    """Where values come from; of several sources the highest counts."""

    CONSTANT = 0
    WEIGHTS = 1
    INPUT = 2
    SPIKES = 3


@dataclass(frozen=True, eq=False)
class Events:
    """Of one tensor.

    Parameters
    ----------
    count
        Events of each element, float64 of the tensor's shape; None where it is no sum of events (pixels, currents), NaN
        for the elements that are none, and infinite for those of them that come from the image alone.
    whole
        Whether the count is the value itself, a whole number.
    through
        Operations on the way that are not linear, after which events were counted anew from the values.
    forms
        In which form each layer's spikes are in it; of real numbers, of which layers they are made.
    axes
        Along which the factor differs by which a layer's spikes are in it.
    rounded
        Whether they are whole numbers that the network itself made, also where too low to be events.
    graded
        Whether each spike counts as often as its whole height is, as where `whole`, though some heights are below 0.
    """

    count: Tensor | None
    whole: bool = False
    through: frozenset[str] = frozenset()
    forms: Forms = field(default_factory=dict)
    axes: Axes = frozenset()
    rounded: bool = False
    graded: bool = False

    @property
    def by_height(self) -> bool:
        """Whether each spike counts as often as its whole height is."""
        return self.whole or self.graded


NONE = Events(None)
_BY = " by "
LEVELS = "levels"
"""In `Events.forms`: whole numbers above 1 that no neuron fired, such as pixels of 0..255."""


def real(source: Source) -> float:
    """What stands in `Events.count` for a real number."""
    return math.inf if source == Source.INPUT else math.nan


def spread(events: Events) -> Events:
    """Events of a tensor that is laid over several places: an average is real then, since a spike is in all of them."""
    average = not events.whole and any(form.terms > 1 for form in events.forms.values())
    return Events(None, forms=mixed([events.forms])) if average else events


def is_whole(x: Tensor) -> bool:
    """Whether every value is a count: 0, 1, 2, ... (spikes, and sums of spikes)."""
    if x.dtype == torch.bool or x.is_complex():
        return not x.is_complex()
    return bool((x >= 0).all()) and bool((x == x.round()).all())


def made_at(place: str, operation: str) -> str:
    """In `Events.forms`: who makes whole numbers without being a neuron."""
    return f"{place}{_BY}{operation}"


def are_levels(forms: Forms) -> bool:
    """Whether all are whole numbers that no neuron fired, and some above 1; of those that a network makes, a step may
    have none above."""
    return LEVELS in forms and all(name == LEVELS or _BY in name for name in forms)


def counted(x: Tensor, name: str, through: frozenset[str] = frozenset()) -> Events:
    """Events by value: whole numbers are as many, -1 is one, whose weight is subtracted; else none are known."""
    values = x.detach()
    if is_whole(values):
        many = name != LEVELS and values.numel() and float(values.max()) > 1
        return Events(values.double(), True, through, {LEVELS if many else name: Form()})
    if values.is_complex() or not bool((values == values.round()).all()):
        return NONE
    if bool((values.abs() > 1).any()):
        return Events(None, through=through, rounded=name != LEVELS)
    return Events(values.abs().double(), False, through, {name: Form(SIGN)})


@dataclass
class _Memory:
    alive: StorageWeakRef
    source: Source
    flat: Tensor | None
    events: Events
    made_of: frozenset[str] = frozenset()
    ways: Ways = field(default_factory=dict)
    digits: Digits = frozenset()


def storage_of(x: Tensor) -> torch.UntypedStorage:
    """The memory of a tensor; of a sparse one, that of its values."""
    return (x if x.layout is torch.strided else stored_values(x)).untyped_storage()


class EventMemory:
    """Sources and events by memory, for as long as the tensors live."""

    def __init__(self) -> None:
        self._known: dict[int, _Memory] = {}
        self._inside: dict[int, StorageWeakRef] = {}
        self._writes = 0

    def source(self, x: Tensor) -> Source:
        """Where the tensor's values come from."""
        found = self._known.get(storage_of(x)._cdata)
        return Source.CONSTANT if found is None else found.source

    def known(self, x: Tensor) -> bool:
        """Whether anything was said about the tensor's memory."""
        return storage_of(x)._cdata in self._known

    def made_of(self, x: Tensor) -> frozenset[str]:
        """Names of the parameters that the tensor was made of, and of nothing that depends on the input."""
        found = self._known.get(storage_of(x)._cdata)
        return frozenset() if found is None else found.made_of

    def events(self, x: Tensor) -> Events:
        """Events of each element."""
        found = self._known.get(storage_of(x)._cdata)
        if found is None or x.layout is not torch.strided:
            return NONE
        if found.flat is None:
            return found.events
        about, stride = found.events, x.stride()
        count = found.flat.as_strided(x.shape, stride, x.storage_offset())
        forms = forms_of(x, found.digits, about.forms)
        axes = axes_of(x, found.digits)
        events = Events(count, about.whole, about.through, forms, axes, graded=about.graded)
        laid_over = 0 in stride and any(size > 1 for size, apart in zip(x.shape, stride, strict=True) if not apart)
        return spread(events) if laid_over else events

    def ways(self, x: Tensor) -> Ways:
        """How its values came from where they were before, see `isofire.firing.cost.events.ways`."""
        found = self._known.get(storage_of(x)._cdata)
        return {} if found is None else found.ways

    def write(
        self,
        x: Tensor,
        source: Source,
        events: Events = NONE,
        made_of: frozenset[str] = frozenset(),
        ways: Ways | None = None,
    ) -> None:
        """Say what the tensor holds; the rest of its memory, if any, stays as it was."""
        ways = {} if ways is None else ways
        self._sweep()
        storage = storage_of(x)
        size = storage.nbytes() // max(x.element_size(), 1)
        found = self._known.get(storage._cdata)
        about, digits = replace(events, count=None, axes=frozenset()), digits_of(x, events.axes)
        if found is None or x.numel() >= size:
            flat = None if events.count is None else _laid_out(x, events.count, size)
            self._known[storage._cdata] = _Memory(StorageWeakRef(storage), source, flat, about, made_of, ways, digits)
            return
        before, held = found.source, found.flat
        found.source, found.made_of = max(before, source), found.made_of | made_of
        found.ways = together((found.ways, ways))
        forms = beside([found.events.forms, events.forms], rows=True)
        if any(found.events.forms.get(layer, form).factor != form.factor for layer, form in events.forms.items()):
            digits |= digits_beside(x, size)
        found.digits |= digits
        whole = events.whole and (found.events.whole if held is not None else before < Source.INPUT)
        graded = events.by_height and (found.events.by_height if held is not None else before < Source.INPUT)
        found.events = Events(None, whole, found.events.through | events.through, forms, graded=graded and not whole)
        if (held is None and events.count is None) or (uneven(forms) and not whole):
            found.flat = None
            return
        flat = self._unknown(x, before).expand(size).clone() if held is None else held
        found.flat = _written(flat, x, self._unknown(x, source) if events.count is None else events.count)

    def see_inside(self, given: Iterable[Tensor], made: Iterable[Tensor]) -> None:
        """An operation in a neuron: what it makes of what depends on the input does so too."""
        if any(self.source(x) >= Source.INPUT or storage_of(x)._cdata in self._inside for x in given):
            self._inside |= {memory._cdata: StorageWeakRef(memory) for memory in map(storage_of, made)}

    def leave_neuron(self) -> None:
        """What a neuron made and keeps, such as its membrane, is real numbers to whoever reads it outside."""
        for place, alive in self._inside.items():
            if not alive.expired() and (place not in self._known or self._known[place].source < Source.INPUT):
                self._known[place] = _Memory(alive, Source.SPIKES, None, NONE)
        self._inside.clear()

    @staticmethod
    def _unknown(x: Tensor, source: Source) -> Tensor:
        """A constant brings no events, and in numbers that depend on the input none are known."""
        return torch.full((), 0.0 if source < Source.INPUT else real(source), dtype=torch.float64, device=x.device)

    def _sweep(self) -> None:
        self._writes += 1
        if self._writes % _SWEEP == 0:
            self._known = {key: item for key, item in self._known.items() if not item.alive.expired()}


def _laid_out(x: Tensor, count: Tensor, size: int) -> Tensor:
    count = count.expand(x.shape)
    if x.is_contiguous() and x.storage_offset() == 0 and x.numel() == size:
        # memory of its own: places are read from its beginning, and the count may be a part of another tensor's
        return count.reshape(-1).clone()
    return _written(torch.zeros(size, dtype=torch.float64, device=x.device), x, count)


def _written(flat: Tensor, x: Tensor, count: Tensor) -> Tensor:
    count = count.expand(x.shape)
    expanded = any(size > 1 and not stride for size, stride in zip(x.shape, x.stride(), strict=True))
    if not (flat.requires_grad or count.requires_grad or expanded):
        flat.as_strided(x.shape, x.stride(), x.storage_offset()).copy_(count)
        return flat
    # with gradients, or one place for several numbers, nothing is written in place; as_strided_scatter loses the
    # gradient of what was there before
    places = torch.arange(len(flat), device=flat.device).as_strided(x.shape, x.stride(), x.storage_offset())
    return flat.index_put((places.flatten(),), count.flatten())
