"""Images of one kind: those of one size, and what a network is asked of them. It may treat another size in another way,
by layers of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product

from torch import Tensor, nn

from isofire.firing.cost.counting.all_steps import work_on_all_steps, worked_on_again
from isofire.firing.cost.counting.frames import CallsAsked
from isofire.firing.cost.counting.meter import CostMeter
from isofire.firing.cost.counting.reuse import (
    Image,
    Slot,
    calls_on_noise,
    comes_again,
    is_told,
    pattern_of,
    same_inputs,
)
from isofire.firing.cost.counting.summed import is_lone
from isofire.firing.cost.counting.tally import Lying
from isofire.firing.cost.counting.together import Together

_MOST = 8
"""Ways of calling layers of which a network is asked."""


@dataclass
class Kind:
    """Images of one size.

    Attributes
    ----------
    few
        Those that tell most, as the model takes them.
    axis
        Of the images.
    way
        How they go through the network.
    lying
        How rows of places lie.
    unknown
        Places of which the network does not tell it.
    """

    few: Tensor
    axis: int
    way: Together
    lying: Lying
    unknown: frozenset[str]


@dataclass(frozen=True)
class Asked:
    """What a network tells of images whose layers are called alike.

    Attributes
    ----------
    loops
        Places called several times with a static image, and no neuron in between -> whether calls are steps, and not
        parts of the image that every step sees; None where that is not known.
    at_once
        Places that see something of a static image all at once -> whether they work on all steps in one call.
    unasked
        Places of which nobody asked, since layers are called in too many ways.
    """

    loops: Mapping[str, bool | None]
    at_once: Mapping[str, bool | None]
    unasked: frozenset[str] = frozenset()


def same_of(model: nn.Module, meter: CostMeter, kinds: Sequence[Kind]) -> tuple[dict[str, dict[Slot, Slot]], list[str]]:
    """Place -> which of the inputs that it multiplies come again, and places where equal numbers alone tell it.

    Parameters
    ----------
    kinds
        Of each image that the meter has seen.
    """
    images = {name: tally.images for name, tally in meter.sites.items() if any(map(_multiplies, tally.images))}
    found = {name: same_inputs(its) for name, its in images.items()}
    again = [name for name, same in found.items() if comes_again(same)]
    firsts = [kinds[places[0]] for places in _alike(meter, kinds)][:_MOST]
    others: dict[str, list[Image]] = {}
    for kind, of_data in product(firsts, (False, True)):
        open_ = [name for name in again if not is_told(images[name], others.get(name, ()))]
        run = partial(kind.way.run, axis=kind.axis)
        calls = calls_on_noise(model, kind.few, run, of_data, kind.lying) if open_ else {}
        for name in (name for name in open_ if name in calls):
            others.setdefault(name, []).extend(calls[name])
    told = {name: same_inputs(images[name], others.get(name, ())) for name in found}
    return told, [name for name in again if not is_told(images[name], others.get(name, ()))]


def asked_of(
    model: nn.Module, meter: CostMeter, kinds: Sequence[Kind], same: Mapping[str, Mapping[Slot, Slot]]
) -> list[Asked]:
    """What holds of each image.

    Parameters
    ----------
    kinds
        As of `same_of`.
    same
        What that found.
    """
    found: dict[int, Asked] = {}
    for way, places in enumerate(_alike(meter, kinds)):
        images = {name: [tally.images[place] for place in places] for name, tally in meter.sites.items()}
        kind = kinds[places[0]] if way < _MOST else None
        found |= dict.fromkeys(places, _asked(model, meter, kind, images, same))
    return [found[place] for place in range(len(kinds))]


def _alike(meter: CostMeter, kinds: Sequence[Kind]) -> list[list[int]]:
    """Places of the images of all kinds in which the network calls the same layers as often, as their first tells."""
    of_kind: dict[int, tuple[object, ...]] = {}
    found: dict[tuple[object, ...], list[int]] = {}
    for place, kind in enumerate(kinds):
        if id(kind) not in of_kind:
            of_kind[id(kind)] = tuple((name, pattern_of(tally.images[place])) for name, tally in meter.sites.items())
        found.setdefault(of_kind[id(kind)], []).append(place)
    return list(found.values())


def _asked(
    model: nn.Module,
    meter: CostMeter,
    kind: Kind | None,
    images: Mapping[str, Sequence[Image]],
    same: Mapping[str, Mapping[Slot, Slot]],
) -> Asked:
    """Of images whose layers are called alike, such as `kind`'s; None: nobody is to ask."""
    loops: dict[str, bool | None] = {}
    strangers, unasked = bool(meter.strangers), set[str]()
    asking = None if kind is None else CallsAsked(model, kind.few, strangers=strangers)
    for name, its in images.items():
        calls = {shown for image in its if (shown := _shown(image)) and (some := image[slice(*shown)])
                 and any(call.real for call in some) and len({call.neuron_calls for call in some}) == 1}  # fmt: skip
        again, steps = comes_again(same.get(name, {})), meter.steps
        many = [(first, end) for first, end in calls if end - first > 1]
        if steps > 1 and many:
            # so many calls may well be steps, and it is told where that cannot be known
            likely = again or any((end - first) % steps == 0 for first, end in many)
            if asking is None:
                loops |= {name: True} if again else {}
                unasked |= {name} if likely and not again else set()
                continue
            first, end = max(many, key=lambda shown: shown[1])
            told = None if asking.spent else asking.are_steps(name, first + 1, end, steps)
            # what comes again does so at other steps
            if told is not None or likely or asking.spent or name in asking.held:
                loops[name] = True if told is None and again else told
    sites = worked_on_again(images, meter.steps, loops, stepped=meter.stepped)
    if kind is None:
        return Asked(loops, {}, frozenset(unasked.union(sites)))
    return Asked(loops, work_on_all_steps(model, kind.few, sites, strangers=strangers))


def _shown(image: Image) -> tuple[int, int]:
    """The first of its calls that sees all of the image at once, and the one behind the last such; none where another
    sees some of it otherwise, or spikes come in between. Constants, such as a state at rest, do not count."""
    places = [place for place, call in enumerate(image) if is_lone(call)]
    first, end = (places[0], places[-1] + 1) if places else (0, 0)
    within = all(is_lone(call) or call.constant for call in image[first:end])
    beside = all(call.static is None or call.constant for call in (*image[:first], *image[end:]))
    return (first, end) if within and beside else (0, 0)


def _multiplies(image: Image) -> bool:
    return any(call.real or call.constant for call in image)
