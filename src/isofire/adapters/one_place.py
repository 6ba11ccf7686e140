"""A neuron that sees single steps must stand at one place of its network, or two layers are taken for one.

How many steps there are is only known from how often it is called. What tells two places from two steps is where the
calls come from: the lines and modules that lead to them, and the layer that ran just before. Where states are handed
over, each step is given the state that the step before gave; that of an earlier one belongs to another place.
"""

from __future__ import annotations

import sys
import weakref
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from types import FrameType
from typing import Any

from torch import Tensor, nn

from isofire.adapters.base import Adapter, Layout
from isofire.adapters.layers_run import telling
from isofire.adapters.memory import Held, hold, place
from isofire.adapters.phases import are_phases, comes_back, goes_on, handed_on, in_turn
from isofire.adapters.uses import Uses
from isofire.adapters.weights_used import Kind
from isofire.errors import ModelError
from isofire.running import tensors_in

Place = tuple[tuple[Any, ...], tuple[int, ...]]
"""Lines and modules from the model's forward down to a call, and the layers of each kind that ran last before it."""


@contextmanager
def at_one_place(model: nn.Module, neurons: Mapping[str, tuple[nn.Module, Adapter]]) -> Iterator[None]:
    """Raises, at the end of each forward of the model inside, if a neuron of single steps was called at two places.

    Two places are two lines of code, two ways through the model's modules, one line that runs behind several layers,
    each of them equally often and not in phases, or behind what changes in turn, or two states that are handed over
    apart. Steps that are written out one by one look the same and are refused with them; not so a first step that
    stands before the loop of at least two others, in which the network calls all of its neurons once as it does at each
    later step; layers that are used again and again, each on what the use before gave, are steps then too, as they are
    in a loop.

    Raises
    ------
    ModelError
        Names the neuron.
    """
    watched = {name: neuron for name, (neuron, adapter) in neurons.items() if adapter.layout(neuron) is Layout.STEP}
    if not watched:
        yield
        return
    seen: dict[str, list[Place]] = {name: [] for name in watched}
    states: dict[str, dict[int | None, tuple[Held, int]]] = {name: {} for name in watched}
    apart: set[str] = set()
    last, order, uses = _Last(), _Order(), Uses()
    inside = {part for neuron in watched.values() for part in neuron.modules()}

    def passed(layer: int, kind: Kind, x: Tensor | None) -> None:
        uses.ran(layer, x)
        if kind is not Kind.AT_REST:
            order.layer = layer
            last.ran(layer, kind)

    def called(name: str, _module: nn.Module, inputs: Any, named: Any) -> None:
        seen[name].append((_way(model), last.layers()))
        order.call(name, next(iter(_tensors(inputs[:1])), None))
        uses.called(name, next(iter(_tensors(inputs[:1])), None))
        own = states[name]
        before = {own[at][1] for x in _tensors((inputs[1:], named)) if (at := place(x)) in own
                  and not own[at][0].expired()}  # fmt: skip
        if before and max(before) < len(seen[name]) - 2:
            apart.add(name)

    def gave(name: str, _module: nn.Module, _inputs: Any, output: Any) -> None:
        given = _tensors(output)
        uses.gave(name, given)
        states[name] |= {place(x): (hold(x), len(seen[name]) - 1) for x in given}

    def begin(_module: nn.Module, _inputs: Any) -> None:
        for places in (*seen.values(), *states.values()):
            places.clear()
        for kept in (last, order, uses, apart):
            kept.clear()

    def end(_module: nn.Module, _inputs: Any, _output: Any) -> None:
        begun = order.is_of_steps() and all(_is_begun(places) for places in seen.values() if places)
        for name in apart:
            raise _two_places(name, "was given states that it gave before its last call")
        for name, places in seen.items():
            _check(name, places[1:] if begun else places, uses)

    for name, neuron in watched.items():
        _check_lists(model, name, neuron)
    with ExitStack() as stack:
        stack.enter_context(telling(model, inside, passed, uses.made))
        for name, neuron in watched.items():
            stack.callback(neuron.register_forward_pre_hook(partial(called, name), with_kwargs=True).remove)
            stack.callback(neuron.register_forward_hook(partial(gave, name)).remove)
        if model not in inside:
            stack.callback(model.register_forward_pre_hook(begin, prepend=True).remove)
            stack.callback(model.register_forward_hook(end).remove)
        yield


def _tensors(values: Any) -> list[Tensor]:
    return [x for x in tensors_in(values) if place(x) is not None]


def _way(model: nn.Module) -> tuple[Any, ...]:
    """The frames from the model's forward down to the call, each with the module that it belongs to."""
    found: list[Any] = []
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        code = frame.f_code
        owner = frame.f_locals.get(code.co_varnames[0]) if code.co_argcount else None
        method = getattr(type(owner), code.co_name, None) if isinstance(owner, nn.Module) else None
        if getattr(method, "__code__", None) is not code:
            # a function that is given a module is not that module's
            owner = frame.f_locals.get("self")
        found.append((code, frame.f_lasti, id(owner) if isinstance(owner, nn.Module) else 0))
        if owner is model and code.co_name == "forward":
            break
        frame = frame.f_back
    return tuple(found)


class _Last:
    """The layers that ran last: of each kind, of those that surely have weights, and of those that may."""

    def __init__(self) -> None:
        self._last = dict.fromkeys(Kind, 0)
        self._sure = self._latest = 0

    def ran(self, layer: int, kind: Kind) -> None:
        self._last[kind] = layer
        if kind is not Kind.BARE:
            self._latest = layer
        if kind in {Kind.WEIGHTED, Kind.WRITTEN_OUT}:
            self._sure = layer
        if kind is Kind.WEIGHTED:
            self._last[Kind.BARE] = 0

    def layers(self) -> tuple[int, ...]:
        kinds = (self._last[kind] for kind in (Kind.WEIGHTED, Kind.BARE, Kind.WRITTEN_OUT, Kind.MIXED))
        return (*kinds, self._sure, self._latest)

    def clear(self) -> None:
        self._last = dict.fromkeys(Kind, 0)
        self._sure = self._latest = 0


class _Order:
    """The calls of all neurons in a forward, in their order, and what each was given."""

    def __init__(self) -> None:
        self.layer = 0
        """The layer that ran last since the last call; 0 for none."""
        self._names: list[str] = []
        self._layers: dict[str, set[int]] = {}
        self._given: dict[str, set[weakref.ref[Tensor] | None]] = {}

    def call(self, name: str, x: Tensor | None) -> None:
        self._names.append(name)
        self._layers.setdefault(name, set()).add(self.layer)
        self._given.setdefault(name, set()).add(None if x is None else weakref.ref(x))
        self.layer = 0

    def clear(self) -> None:
        self.layer = 0
        for kept in (self._names, self._layers, self._given):
            kept.clear()

    def is_of_steps(self) -> bool:
        """Whether all neurons are called in one order again and again, three times or more, each behind one layer or
        given one tensor."""
        count = len(self._layers)
        steps, rest = divmod(len(self._names), max(count, 1))
        if rest or steps < 3 or self._names != self._names[:count] * steps:
            return False
        return all(
            (len(layers) == 1 and 0 not in layers) or (len(self._given[name]) == 1 and None not in self._given[name])
            for name, layers in self._layers.items()
        )


def _is_begun(places: list[Place]) -> bool:
    """Whether a first call stands before a loop, at another line of one forward than all later ones: `out = net(x)`,
    `for _ in range(1, T): out += net(x)`."""
    first, *later = [way for way, _ in places]
    if len(set(later)) > 1 or len(first) != len(later[0]):
        return False
    unlike = [(one, other) for one, other in zip(first, later[0], strict=True) if one != other]
    return len(unlike) == 1 and unlike[0][0][::2] == unlike[0][1][::2]


def _check(name: str, places: list[Place], uses: Uses) -> None:
    if not places:
        return
    ways = {way for way, _ in places}
    modules = Counter(layers[:2] for _, layers in places)
    # weights that were not used yet tell nothing of a place
    others = [Counter(layers[at] for _, layers in places if layers[at]) for at in range(2, 6)]
    # a norm of its own for every step comes before the neuron once each
    shared = [len(before) for before in (modules, *others) if len(before) > 1 and len(set(before.values())) == 1
              and before.total() > len(before)]  # fmt: skip
    if len(ways) > 1:
        raise _two_places(name, f"was called at {len(ways)} places in one forward")
    spans = uses.spans(name)[-len(places) - 1 :]
    leads, on = uses.leads(name)[-len(places) :], goes_on(name, spans)
    latest = [layers[-1] for _, layers in places]
    # others may run in between, as those that read some of the steps
    one = None not in leads and len({layer for layer, _ in filter(None, leads)}) == 1
    if shared and (one or (on and not comes_back(name, spans)) or are_phases(name, spans, latest)):
        shared = []
    turns = 0 if on else in_turn([span.of(leads[0][0]) for span in spans] if one and leads[0] else spans)
    if apart := max(shared, default=turns) or handed_on(leads, on):
        raise _two_places(name, f"was called at {apart} places in one forward")


def _check_lists(model: nn.Module, name: str, neuron: nn.Module) -> None:
    for where, module in model.named_modules():
        if isinstance(module, nn.Sequential | nn.ModuleList) and sum(item is neuron for item in module) > 1:
            raise _two_places(name, f"stands more than once in {where!r}" if where else "stands in its model twice")


def _two_places(name: str, what: str) -> ModelError:
    return ModelError(
        f"neuron {name!r} sees single steps and {what}, so its layers cannot be told apart, nor steps from places; "
        "give each place its own neuron module, and write the steps as a loop"
    )
