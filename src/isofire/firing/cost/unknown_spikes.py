"""Spikes of a network's own code or of a class that isofire does not know: they are in no rate and no drift.

A comparison makes 0 and 1 of real numbers that spikes or weights made, and the 0 and 1 arrive at weights, or the
numbers are a state, which comes back to the same line of the code from step to step. Whole numbers that a state is
rounded to are several spikes where they arrive at weights. Thresholds on the inputs themselves are encoders; masks go
on as truths, or as a factor, and not by themselves.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from torch import Tensor

from isofire.firing.cost.call import Call
from isofire.firing.cost.events import LEVELS, Events, Source
from isofire.firing.cost.ways import Ways, together

_COMPARING = frozenset(("gt", "ge", "lt", "le", "heaviside", "bernoulli"))
_ROUNDING = frozenset(("floor", "round", "trunc", "ceil", "floor_divide"))


@dataclass
class _Made:
    """What an operation in a module makes of real numbers, whether those are a state, and whether it makes spikes."""

    module: str
    place: str
    operation: str
    of_state: bool = False
    sure: bool = False


@dataclass
class UnknownSpikes:
    """Of one forward pass."""

    made: dict[str, _Made] = field(default_factory=dict)
    """By their name in `Events.forms`."""
    outputs: dict[tuple[str, str], int] = field(default_factory=dict)
    """Module and operation -> elements that it gave, in all calls."""

    def see(self, call: Call, found: Events | list[Events], ways: Iterable[Ways]) -> None:
        """An operation that is no product, what it gave, and how what it was given came from where it was before."""
        driven = [x for x in call.tensors() if call.depends(x)]
        making = call.name in _COMPARING or call.name in _ROUNDING
        output = call.output[0] if isinstance(call.output, tuple) else call.output
        if isinstance(found, list) or not isinstance(output, Tensor) or not driven:
            return
        if making:
            place = call.place, call.name
            self.outputs[place] = self.outputs.get(place, 0) + output.numel()
        if found.count is None:
            return
        given = [call.events(x) for x in driven]
        before = frozenset[str]().union(*(item.forms for item in given))
        if making and all(item.count is None for item in given):
            self._make(call, together(ways), any(call.source(x) == Source.SPIKES for x in driven))
        elif before and before <= self.made.keys() and all(item.count is not None for item in given):
            # pooled, inverted, chosen by: the same spikes
            for name in found.forms.keys() - before:
                self.made[name] = self.made[min(before)]
        if output.is_floating_point():
            # a state is clipped by truths
            for made in (self.made[name] for name in found.forms if name in self.made):
                made.sure |= made.of_state and made.operation in _COMPARING

    def arrive(self, events: Events) -> None:
        """These come to weights."""
        if events.count is None:
            return
        for name, made in self.made.items():
            if made.operation in _COMPARING:
                made.sure |= name in events.forms
            else:
                made.sure |= made.of_state and (name in events.forms or LEVELS in events.forms)

    def found(self) -> dict[str, tuple[str, int]]:
        """Module -> what makes spikes there, and its outputs in all calls; of several that which makes most."""
        places: dict[str, tuple[str, int]] = {}
        for made in self.made.values():
            outputs = self.outputs[made.place, made.operation]
            if made.sure and outputs > places.get(made.module, ("", 0))[1]:
                places[made.module] = made.operation, outputs
        return places

    def makers(self, events: Events) -> set[str]:
        """Modules of whose spikes these are some."""
        return {made.module or "(model)" for name, made in self.made.items() if made.sure and name in events.forms}

    def _make(self, call: Call, ways: Ways, of_spikes: bool) -> None:
        if not (of_spikes or any(isinstance(place, str) and place for place in ways)):
            return
        made = self.made.setdefault(f"{call.place} {call.name}", _Made(call.place, call.place, call.name))
        kept = {place[0] for place, way in ways.items() if not isinstance(place, str) and way.times > 1}
        if around := [module for module in kept if not module or f"{call.place}.".startswith(f"{module}.")]:
            made.module, made.of_state = max(around, key=len), True
