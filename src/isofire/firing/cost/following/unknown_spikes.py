"""Spikes of a network's own code or of a class that isofire does not know: they are in no rate and no drift.

What decides is what comes out, not by which operation: of real numbers that spikes or weights made come a few whole
ones, and those arrive at weights, or come back to the state that they were made of. Whole by what they are: truths,
integers, what is compared, rounded or drawn; whole by their values in every call of a line of the code: a custom
operation, a ramp that is a step. What is scaled to real numbers again before it arrives (levels of an activation) is
none. Places of a maximum are spikes of a state alone, and codes otherwise; thresholds on the inputs themselves are
encoders; masks go on as truths, or as a factor of something else, and not by themselves.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from isofire.firing.cost.events.call import Call
from isofire.firing.cost.events.events import Events, Source
from isofire.firing.cost.events.operations import MOVES, PLACED, ROUNDING, SUMS_OF_TWO
from isofire.firing.cost.events.ways import Way, Ways, together
from isofire.firing.cost.following.looked_at import LookedAt, Memory
from isofire.firing.cost.following.own_states import line_of_code
from isofire.running import stored_values

_COMPARING = frozenset(("gt", "ge", "lt", "le", "heaviside", "bernoulli"))
_PICKING = frozenset(("argmax", "argmin", "argsort", "eq", "ne", "nonzero", "multinomial"))
_SIDE_BY_SIDE = MOVES | SUMS_OF_TWO | frozenset(("maximum", "minimum"))
"""Spikes in one of the tensors are spikes in the result."""
_GATING = frozenset(("mul", "logical_and", "bitwise_and"))
_FEW = 255
"""The largest whole number that is one of few."""


class Made(NamedTuple):
    """In the ways of a tensor: it holds spikes of this maker."""

    maker: str


Held = tuple[dict[Made, Way], dict[Made, Way]]
"""Whose spikes are in an operation's real results, and in the others."""


@dataclass
class _Maker:
    """What an operation in a module makes of real numbers, whether those are a state, and whether it makes spikes."""

    module: str
    operation: str
    place: tuple[str, str]
    picks: bool = False
    of_state: bool = False
    sure: bool = False
    size: float = 1.0
    """Spikes, or their absence, for each of its outputs: those of a place are as many as there are places."""
    least: float = float("inf")
    most: float = -float("inf")
    looked_at: Memory = field(default_factory=dict)
    """Where that lay."""
    of_counts: bool = True
    """Whether that was whole numbers in all calls, such as those of a refractory time."""


@dataclass
class UnknownSpikes:
    """Of one forward pass."""

    makers: dict[str, _Maker] = field(default_factory=dict)
    """By their name, as in `Events.forms` where those hold it."""
    outputs: dict[tuple[str, str], int] = field(default_factory=dict)
    """Module and operation, with its line where values decide -> elements that it gave, in all calls."""
    _looked_at: LookedAt = field(default_factory=LookedAt)
    _counted: dict[tuple[str, str], Memory] = field(default_factory=dict)
    """By place as in `outputs`: what was looked at there."""
    _gating: set[tuple[str, str]] = field(default_factory=set)
    """Places of makers that look at whole numbers, and let the spikes of others pass."""
    _left: tuple[str, str] | None = None
    _real: set[str] = field(default_factory=set)
    """Operations that give real numbers too."""

    def see(
        self, call: Call, found: Events | list[Events], given: Sequence[tuple[Tensor, Ways]], less: Tensor | None = None
    ) -> Held:
        """An operation that is no product; gives whose spikes its results hold.

        Parameters
        ----------
        given
            All its tensors, and how each came from where it was before.
        less
            The one of them to which is added what was taken off, as a straight-through estimator does.
        """
        driven = [(x, ways) for x, ways in (given[1:] if call.name == "copy" else given) if call.depends(x)]
        several = isinstance(call.output, tuple | list)
        output = call.output[0] if several and call.output else call.output
        if not isinstance(output, Tensor) or not driven:
            return {}, {}
        self._looked_at.follow(call, output, driven, _states(driven[0][1]))
        if less is not None and (taken_off := self._looked_at.put_back(less)) is not None:
            return _held(taken_off), _held(taken_off)
        first = found[0] if isinstance(found, list) else found
        certain = _is_certain(call, output)
        if certain:
            place = call.place, _what(call)
            self._count(place, output, driven)
        names = self._passed_on(call, first, output, driven)
        for name in names:
            self._grow(name, output, driven)
        if call.name == "sub" and not names and call.depends(call.args[0]):
            self._looked_at.take_off(output, makers_in(given[0][1]))
        if several and not isinstance(found, list) and len(call.output) > 1 and not names:
            # the values of a maximum are real, and its places are its choice
            return {}, _held(self._made(call, call.output[1], driven, True) if _gives_places(call) else ())
        if not names and not several and _may_make(call, driven, certain):
            names = self._made(call, output, driven, certain)
        if output.is_floating_point():
            self._meets_its_state(output, driven)
            # a state is clipped by truths
            for name in names:
                maker = self.makers[name]
                maker.sure |= first.count is not None and maker.of_state and maker.operation in _COMPARING
        return _held(names), _held(names)

    def leave(self, module: str, how: str, source: Source, ways: Ways) -> None:
        """Values leave torch, by numpy or as a list."""
        if source == Source.SPIKES or is_weighed(ways):
            self._left = module, f"{how}()"

    def enter(self, x: Tensor) -> dict[Made, Way]:
        """A tensor that no operation made, after values have left."""
        if self._left is None or not _is_few(x) or _is_one_value(x):
            return {}
        name = " ".join(self._left)
        self.makers.setdefault(name, _Maker(*self._left, self._left, least=0, most=1))
        self.outputs[self._left] = self.outputs.get(self._left, 0) + x.numel()
        return _held({name})

    def arrive(self, x: Tensor, events: Events, ways: Ways) -> frozenset[str]:
        """These come to weights; gives whose spikes they are."""
        names = makers_in(ways) | (events.forms.keys() & self.makers.keys())
        if not names or (events.count is None and not _is_few(x)):
            return frozenset()
        for maker in (self.makers[name] for name in names):
            maker.sure |= maker.of_state or not maker.picks
        return frozenset(names)

    def found(self) -> dict[str, tuple[str, int]]:
        """Module -> what makes most spikes there, and how many neurons give outputs, those of all calls together.

        What looks at one state, to fire and to reset it, or at several thresholds, looks at the same neurons.
        """
        neurons: dict[str, list[list[_Maker]]] = {}
        for maker in self._firing():
            groups = neurons.setdefault(maker.module, [])
            own = [group for group in groups if any(self._are_same(maker, other) for other in group)]
            groups[:] = [group for group in groups if group not in own] + [[maker, *itertools.chain(*own)]]
        return {module: self._most(groups) for module, groups in neurons.items()}

    def _firing(self) -> list[_Maker]:
        """Those that fire: not what counts steps to let the spikes of others pass, where there are others."""
        found = [maker for name, maker in self.makers.items() if self._is_spiking(name)]
        counting = [maker for maker in found if maker.of_counts and maker.place in self._gating]
        others = {maker.module for maker in found if maker not in counting}
        return [maker for maker in found if maker not in counting or maker.module not in others]

    @staticmethod
    def _are_same(one: _Maker, other: _Maker) -> bool:
        """Whether both look at the same neurons: at the same tensors in most of their calls."""
        shared = len(one.looked_at.keys() & other.looked_at.keys())
        return 2 * shared > min(len(one.looked_at), len(other.looked_at))

    def _most(self, groups: list[list[_Maker]]) -> tuple[str, int]:
        most = [max(group, key=self._outputs) for group in groups]
        return max(most, key=self._outputs).operation, sum(round(self._outputs(maker)) for maker in most)

    def _outputs(self, maker: _Maker) -> float:
        return self.outputs[maker.place] * maker.size

    def modules(self, names: Iterable[str]) -> set[str]:
        """Modules whose spikes these are."""
        return {self.makers[name].module or "(model)" for name in names if self._is_spiking(name)}

    def _is_spiking(self, name: str) -> bool:
        maker = self.makers[name]
        return maker.sure and name not in self._real and maker.most > maker.least

    def _passed_on(self, call: Call, found: Events, output: Tensor, driven: Sequence[tuple[Tensor, Ways]]) -> set[str]:
        """Makers of the spikes that are given, where they are the same spikes after it: pooled, inverted, scaled."""
        given = [makers_in(ways) for _, ways in driven]
        names = set[str]().union(*given)
        if names and call.name not in _SIDE_BY_SIDE:
            others = [x for (x, _), makers in zip(driven, given, strict=True) if not makers]
            names = names if all(map(_is_one_value, others)) else set()
        if call.name in _GATING and len(names) > 1:
            both = [self.makers[name] for name in names]
            if not all(maker.of_counts for maker in both):
                self._gating |= {maker.place for maker in both if maker.of_counts}
        if found.count is not None:
            before = set[str]().union(*(call.events(x).forms for x, _ in driven))
            names |= found.forms.keys() & before & self.makers.keys() - {f"{call.place} {call.name}"}
        return names if names and (found.count is not None or _is_few(output)) else set()

    def _made(self, call: Call, output: Tensor, driven: Sequence[tuple[Tensor, Ways]], certain: bool) -> set[str]:
        """The maker, where the result is whole and what it is made of is not."""
        ways, several = together(its for _, its in driven), isinstance(call.output, tuple | list)
        if not is_weighed(ways) and not any(call.source(x) == Source.SPIKES for x, _ in driven):
            return set()
        picks = call.name in _PICKING or several or not any(x.is_floating_point() for x, _ in driven)
        states = set(_states(ways))
        for x, _ in driven if picks else ():
            # the largest behind a softmax or norm is the state's
            states |= self._looked_at.softened(x)
        around = [module for module in states if not module or f"{call.place}.".startswith(f"{module}.")]
        counted = [call.events(x).count is not None for x, _ in driven]
        if any(counted) and not (certain and all(counted) and around):
            return set()
        what = _what(call)
        name, place = f"{call.place} {what}", (call.place, what)
        if not certain:
            if not _is_few(output):
                self._real.add(name)
                return set()
            if all(x.is_floating_point() and _is_few(x) for x, _ in driven):
                # whole as it comes, by chance
                return set()
        if not certain or several:
            self._count(place, output, driven)
        maker = self.makers.setdefault(name, _Maker(call.place, call.name, place, picks))
        for x, _ in driven:
            maker.looked_at |= self._looked_at.memory(x)
        maker.of_counts &= all(map(_is_few, (x for x, _ in driven)))
        if certain:
            maker.least, maker.most = 0, 1
        elif output.numel():
            maker.least = min(maker.least, float(stored_values(output).min()))
            maker.most = max(maker.most, float(stored_values(output).max()))
        if around:
            maker.module, maker.of_state = max(around, key=len), True
        return {name}

    def _count(self, place: tuple[str, str], output: Tensor, driven: Sequence[tuple[Tensor, Ways]]) -> None:
        """A line that looks at one state twice, called to fire and to reset it, has its outputs once."""
        looked_at = {key: item for x, _ in driven for key, item in self._looked_at.memory(x).items()}
        before = self._counted.setdefault(place, {})
        if not before.keys() >= looked_at.keys():
            self.outputs[place] = self.outputs.get(place, 0) + output.numel()
            before |= looked_at

    def _grow(self, name: str, output: Tensor, driven: Sequence[tuple[Tensor, Ways]]) -> None:
        """Places become 0 and 1."""
        maker, given = self.makers[name], [x.numel() for x, ways in driven if name in makers_in(ways)]
        if maker.picks and given and not any(x.is_floating_point() for x, _ in driven):
            maker.size = max(maker.size, output.numel() / max(*given, 1))

    def _meets_its_state(self, output: Tensor, driven: Sequence[tuple[Tensor, Ways]]) -> None:
        """Spikes come back to the state that they were made of, and reset it."""
        if len(driven) < 2 or _is_few(output):
            return
        given = [(x, makers_in(ways), _states(ways)) for x, ways in driven]
        states = set[str]().union(*(kept for _, makers, kept in given if not makers))
        for x, makers, _ in given:
            if x.is_floating_point():
                for maker in (self.makers[name] for name in makers):
                    maker.sure |= maker.of_state and maker.module in states


def makers_in(ways: Ways) -> set[str]:
    """Names of those whose spikes a tensor holds, by its ways."""
    return {place.maker for place in ways if isinstance(place, Made)}


def without_makers(ways: Ways) -> Ways:
    """The ways from places alone."""
    return {place: way for place, way in ways.items() if not isinstance(place, Made)}


def is_weighed(ways: Ways) -> bool:
    """Whether weights had a part in it."""
    return any(isinstance(place, str) and place for place in ways)


def _held(names: Iterable[str]) -> dict[Made, Way]:
    return {Made(name): Way(1) for name in names}


def _what(call: Call) -> str:
    """An operation in a line of the network's code, and where that calls a function of torch, of that."""
    return f"{call.name} {line_of_code()} {line_of_code(innermost=True)}"


def _gives_places(call: Call) -> bool:
    return isinstance(call.output[1], Tensor) and call.output[1].dtype == torch.int64


def _states(ways: Ways) -> set[str]:
    """Modules that keep it from step to step."""
    lines = without_makers(ways).items()
    return {place[0] for place, way in lines if not isinstance(place, str) and way.times > 1}


def _may_make(call: Call, driven: Sequence[tuple[Tensor, Ways]], certain: bool) -> bool:
    """Whether it is more than a way to another place: elements that are put somewhere, unless they are cut."""
    if call.name in MOVES:
        return certain and any(x.is_floating_point() for x, _ in driven)
    return call.name == "scatter" or call.name not in PLACED


def _is_certain(call: Call, output: Tensor) -> bool:
    """Whether it gives whole numbers, whatever it is given."""
    if call.name in _COMPARING or call.name in ROUNDING or call.name == "sgn":
        return True
    if call.name in ("div", "floor_divide"):
        return call.name == "floor_divide" or bool(call.options.get("rounding_mode"))
    return not (output.is_floating_point() or output.is_complex())


def _is_few(x: Tensor) -> bool:
    """Whether all values are whole, and small."""
    if not x.is_floating_point():
        return not x.is_complex()
    x = stored_values(x.detach())
    # most real tensors show it soon
    return all(bool(((part == part.round()) & (part.abs() <= _FEW)).all()) for part in (x.flatten()[:64], x))


def _is_one_value(x: Tensor) -> bool:
    x = stored_values(x)
    return not x.numel() or bool((x == x.flatten()[0]).all())
