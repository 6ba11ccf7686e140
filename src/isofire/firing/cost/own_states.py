"""Numbers that a network's own code keeps from step to step, outside of neurons: readouts that leak, gates, traces.

What an operation gave comes back to the same operation, at the same line of the same module, changed on its way but not
multiplied with weights: a leak, a gate, a running mean. Or it comes back to the same weights: a recurrent layer written
out by hand. A sum that is only added to (logits over all steps) is no state, and neither is a residual sum, whose way
back is through other weights as well as past them.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from isofire.firing.cost.call import Call
from isofire.firing.cost.operations import FACTORLESS, MOVES, PLACED, SUMS, SUMS_OF_TWO
from isofire.firing.cost.ways import Way, Ways, together

_MEETING = SUMS_OF_TWO | {"maximum", "minimum"}
"""Where what was kept and what is new come together."""
_AS_THEY_ARE = (SUMS_OF_TWO - {"lerp"}) | MOVES | SUMS | FACTORLESS | set(PLACED)
_AWAY = str(Path(torch.__file__).parent), str(Path(__file__).parent)


class OwnStates:
    """Follows the ways of values that depend on the input."""

    def __init__(self) -> None:
        self.times: dict[str, int] = {}
        """Module -> how often values came back to one of its places, at most."""

    def after(self, call: Call, given: Iterable[Ways]) -> Ways:
        """Ways of what an operation that is no product gives."""
        found = together(given)
        if call.name not in _AS_THEY_ARE:
            by_elements = torch.Tag.pointwise in getattr(call.func, "tags", ())
            found = {place: Way(way.times, True) for place, way in (found if by_elements else _weights(found)).items()}
        if call.name in _MEETING:
            place = call.place, *_line()
            before = found.get(place)
            if before is None or sum(map(call.depends, call.tensors())) > 1:
                # nothing new meets what was kept in an offset
                found[place] = self._seen(call.place, before if before and before.changed else None)
        return found

    def through(self, site: str, module: str, given: Iterable[Ways]) -> Ways:
        """Ways of what weights give, or, where there is no `site`, a product of activations."""
        found = _weights(together(given))
        if not site:
            return found
        # the loop is the code around the layer
        around = module.rpartition(".")[0] if site == module else module
        return {**found, site: self._seen(around, found.get(site))}

    def _seen(self, module: str, before: Way | None) -> Way:
        way = Way(before.times + 1 if before else 1)
        self.times[module] = max(self.times.get(module, 0), way.times)
        return way


def _weights(ways: Ways) -> dict[Any, Way]:
    """Without those from lines: behind weights, norms and the like they are other layers' numbers."""
    return {place: way for place, way in ways.items() if isinstance(place, str)}


def _line() -> tuple[Any, int]:
    """Where the network's own code is."""
    frame: Any = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_AWAY):
        frame = frame.f_back
    return frame.f_code, frame.f_lasti
