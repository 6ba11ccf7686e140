"""Numbers that a network's own code keeps from step to step, outside of neurons: readouts that leak, gates, traces.

What an operation gave comes back to the same operation, at the same line of the same module, changed on its way but not
multiplied with weights: a leak, a gate, a running mean. Or it comes back to the same weights: a recurrent layer written
out by hand. Or what weights gave in one step meets what they give in the next: a norm of both, a difference, a buffer
that slides along. A sum that is only added to (logits over all steps) is no state, and neither is a residual sum, whose
way back is through other weights as well as past them, nor what is put side by side at the end.
"""

from __future__ import annotations

import itertools
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from isofire.firing.cost.events.call import Call
from isofire.firing.cost.events.operations import FACTORLESS, MOVES, PLACED, SUMS, SUMS_OF_TWO
from isofire.firing.cost.events.ways import Way, Ways, together

_BESIDE = frozenset(("cat", "stack"))
_MEETING = SUMS_OF_TWO | {"maximum", "minimum", "where"} | _BESIDE
"""Where what was kept and what is new come together."""
_AS_THEY_ARE = (SUMS_OF_TWO - {"lerp"}) | MOVES | SUMS | FACTORLESS | set(PLACED)
_PICKED = frozenset(("max", "min", "amax", "amin", "mean"))
_TORCH, _COST = Path(torch.__file__).parent, Path(__file__).parents[1]
_AWAY = str(_TORCH), str(_COST)
_BETWEEN = str(_COST), str(_TORCH / "_ops.py"), str(_TORCH / "utils")
"""Code between an operation and whoever follows it."""


class OwnStates:
    """Follows the ways of values that depend on the input."""

    def __init__(self) -> None:
        self._times: Counter[str] = Counter()
        self._met: Counter[str] = Counter()
        self.clear()

    def clear(self) -> None:
        """A new forward pass."""
        self._fired: Counter[str] = Counter()
        self._first: dict[str, int] = {}
        self._seen_at: Counter[Any] = Counter()
        self._calls = itertools.count(1)

    def fired(self, neuron: str) -> None:
        """A neuron that sees single steps has seen one more."""
        self._fired[neuron] += 1

    def modules(self, steps: int) -> list[str]:
        """Modules whose code comes back to what it keeps in each step after the first."""
        if steps < 2:
            return []
        came = [module for module, times in self._times.items() if times >= max(steps - 1, 2)]
        return list(dict.fromkeys([*came, *(module for module, times in self._met.items() if times >= steps - 1)]))

    def after(self, call: Call, given: Sequence[Ways]) -> Ways:
        """Ways of what an operation that is no product gives; `given` are those of all its tensors."""
        if call.name == "copy":
            # what is written over has no part in it
            given = given[1:]
        ways = [way if _as_it_is(call, place) else _changed(call, way) for place, way in enumerate(given)]
        found = together(ways)
        meeting = self._sites_that_meet(call, ways)
        for site in meeting:
            found[site] = found[site]._replace(changed=call.name not in SUMS_OF_TWO and found[site].changed)
        if call.name == "add" and _starts(call):
            found = {place: way._replace(changed=way.changed and not isinstance(place, str))
                     for place, way in found.items()}  # fmt: skip
        if call.name in _MEETING:
            # what grows is given out, what stays as large slides along
            size = tuple(call.output.shape) if call.name in _BESIDE else None
            place = call.place, *line_of_code(), size
            before = found.get(place)
            if before is None or sum(map(call.depends, call.tensors())) > 1:
                # nothing new meets what was kept in an offset
                kept = before and (before.changed or (size is not None and meeting))
                found[place] = self._seen(call.place, before if kept else None)
        return found

    def through(self, site: str, module: str, given: Iterable[Ways]) -> Ways:
        """Ways of what weights give, or, where there is no `site`, a product of activations."""
        found = _weights(together(given))
        if not site:
            return found
        # the loop is the code around the layer
        around = module.rpartition(".")[0] if site == module else module
        step = max(self._fired.values(), default=0)
        # within a step of neurons that see single ones a layer's calls are of one time, unless all of them are in one
        now = step, 0 if step > self._first.setdefault(site, step) else next(self._calls)
        return {**found, site: self._seen(around, found.get(site))._replace(call=now)}

    def _sites_that_meet(self, call: Call, ways: Sequence[Ways]) -> list[str]:
        """Weights of which two calls' results come together; notes where what is kept is more than added to."""
        calls: dict[str, list[Way]] = {}
        for place, way in (item for its in ways for item in its.items() if isinstance(item[0], str)):
            calls.setdefault(place, []).append(way)
        found = {
            site: max(way.call for way in its) for site, its in calls.items() if len({way.call for way in its}) > 1
        }
        kept = any(way.changed and way.call < last for site, last in found.items() for way in calls[site])
        if kept and call.name not in MOVES and call.name not in PLACED:
            place = call.place, *line_of_code()
            self._seen_at[place] += 1
            self._met[call.place] = max(self._met[call.place], self._seen_at[place])
        return list(found)

    def _seen(self, module: str, before: Way | None) -> Way:
        way = Way(before.times + 1 if before else 1)
        self._times[module] = max(self._times[module], way.times)
        return way


def _as_it_is(call: Call, place: int) -> bool:
    """Whether one of the operation's tensors goes into the result as it is, but for an offset or a sum."""
    if call.name in ("addcmul", "addcdiv"):
        return place == 0
    if call.name in ("add", "sub"):
        alpha = call.options.get("alpha", call.args[2] if len(call.args) > 2 else 1)
        return place == 0 or (call.name == "add" and alpha == 1)
    return call.name in _AS_THEY_ARE and (call.name != "rsub" or place == 1)


def _changed(call: Call, ways: Ways) -> Ways:
    by_elements = torch.Tag.pointwise in getattr(call.func, "tags", ()) or call.name in _PICKED
    return {place: way._replace(changed=True) for place, way in (ways if by_elements else _weights(ways)).items()}


def _starts(call: Call) -> bool:
    """Whether it adds to nothing: what a sum starts with."""
    others = [x for x in call.args[:2] if not call.depends(x)]
    return len(others) == 1 and not (bool(others[0].any()) if isinstance(others[0], Tensor) else others[0])


def _weights(ways: Ways) -> dict[Any, Way]:
    """Without those from lines: behind weights, norms and the like they are other layers' numbers."""
    return {place: way for place, way in ways.items() if isinstance(place, str)}


def line_of_code(*, innermost: bool = False) -> tuple[Any, int]:
    """Where the network's own code is: its code, and the place in it; or the `innermost`, be it torch's."""
    away = _BETWEEN if innermost else _AWAY
    frame: Any = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(away):
        frame = frame.f_back
    return frame.f_code, frame.f_lasti
