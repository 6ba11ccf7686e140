"""Which places work on all steps in one call, as a layer over the axis of time does, and are not to be run at each."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

from torch import Tensor, nn

from isofire.errors import ModelError
from isofire.firing.cost.counting.currents import Currents, Spikes, currents
from isofire.firing.cost.counting.frames import changed, first_of, is_later
from isofire.firing.cost.counting.meter import CostMeter
from isofire.firing.cost.counting.reuse import Image
from isofire.firing.cost.counting.static_routes import Routes
from isofire.firing.cost.counting.summed import is_again, is_lone
from isofire.running import forward

_MOST = 12
"""Runs of the network, however many places it has."""
_Places = Callable[[int], tuple[Any, ...]]
"""Which numbers of a tensor of so many axes."""
_Change = Callable[[str, Tensor, bool], None]


def worked_on_again(
    images: Mapping[str, Sequence[Image]], steps: int, loops: Mapping[str, bool | None], *, stepped: bool
) -> list[str]:
    """Places that see something of a static image all at once, as every step does.

    Parameters
    ----------
    images
        Place -> its calls for each image.
    steps
        T.
    loops
        Place -> whether its calls are steps, and not parts of the image.
    stepped
        Whether neurons see single steps.
    """

    def by_each(name: str, image: Image) -> bool:
        again = is_again(image, steps, stepped=stepped, loops=loops.get(name))
        return not again and any(is_lone(call) and call.real for call in image)

    if steps == 1:
        return []
    return [name for name, its in images.items() if any(by_each(name, image) for image in its)]


def work_on_all_steps(
    model: nn.Module, inputs: Tensor, sites: Collection[str], most: int = _MOST, *, strangers: bool = False
) -> dict[str, bool | None]:
    """Those of some places -> whether a part of what it gives reaches neurons later than the rest does, or all of it at
    one step alone (a layer of each step's own); None where that is not known, since the network has run `most` times or
    refuses the changed number.

    Told by changing one number of it, the last of an image: what is repeated for every step is changed in the first.
    Not asked are places that reach only neurons that are given the same at every step, and places behind which there
    are none but such and others that were found to work on no later step.

    Parameters
    ----------
    inputs
        A few static images, as the model takes them.
    sites
        Places that see something of the image, all at once.
    most
        Runs of the network.
    strangers
        As of `isofire.firing.cost.counting.frames.holds_steps`.
    """
    if not sites:
        return {}
    routes, spikes = Routes(model), Spikes()
    with routes.noting():
        before = _currents(model, inputs, spikes, routes.pass_by, routes)
    alike = {name for name, given in before.items() if len(given) > 1 == len(set(given)) and name in routes.varied}
    asking = _Asking(model, inputs, spikes, before, most, strangers=strangers)
    found: dict[str, bool | None] = {}
    # what comes behind a place first
    for site in (site for site in reversed(routes.axes) if site in sites):
        neurons, others = routes.neurons[site], routes.others[site] - {site}
        same = neurons <= alike and all(found.get(other) is False for other in others)
        found[site] = False if same and (neurons or others) else asking.reaches_later(site, routes)
    return found


class _Asking:
    """Runs the network with one place changed, a few times in all."""

    def __init__(
        self, model: nn.Module, inputs: Tensor, spikes: Spikes, before: Currents, most: int, *, strangers: bool
    ) -> None:
        self._model, self._inputs, self._spikes, self._strangers = model, inputs, spikes, strangers
        self._before, self._left = before, most - 1

    def reaches_later(self, site: str, routes: Routes) -> bool | None:
        """Whether that is so; None where it takes too many runs or is refused."""
        try:
            for axis in (None, *range(routes.axes[site])):
                high = self._changed(site, routes, _last(axis))
                if high:
                    # a code by time has the largest numbers first, or the least; behind a ReLU these are hidden
                    less = any(map(min, high.values()))
                    low = self._changed(site, routes, _last(axis), high=False) if less else {}
                    part = {name: sorted({*steps, *low.get(name, ())}) for name, steps in high.items()}
                    if all(len(steps) > 1 and not steps[0] for steps in part.values()):
                        return False
                    whole = self._changed(site, routes, lambda _: ())
                    at_one = bool(whole) and all(len(steps) == 1 for steps in whole.values())
                    return at_one or is_later(first_of(part), first_of(whole), everywhere=self._strangers)
            return False
        except (_EnoughError, ModelError):
            return None

    def _changed(self, site: str, routes: Routes, places: _Places, *, high: bool = True) -> dict[str, list[int]]:
        if not self._left:
            raise _EnoughError
        self._left -= 1

        def change(place: str, output: Tensor, alone: bool) -> None:
            # what sees spikes beside the image is of other steps than what sees it alone
            if place == site and output.ndim and alone >= (site in routes.alone):
                size = output.abs() if output.is_complex() else output
                output[places(output.ndim)] = size.max() + 1 if high else size.min() - 1

        return changed(self._before, _currents(self._model, self._inputs, self._spikes, change))


class _EnoughError(Exception):
    pass


def _last(axis: int | None) -> _Places:
    """The last number of each call, or where that reaches nothing, the last ones along an axis."""
    if axis is None:
        return lambda axes: (-1,) * axes
    return lambda axes: (*[slice(None)] * min(axis, axes - 1), -1)


def _currents(
    model: nn.Module, inputs: Tensor, spikes: Spikes, change: _Change, below: Routes | None = None
) -> Currents:
    def run(network: nn.Module, given: Tensor) -> Any:
        meter = CostMeter(network)
        meter.trace.change = change
        with meter.counting(), below or nullcontext():
            return meter.trace.run(given, forward)

    return currents(model, inputs, spikes, run)
