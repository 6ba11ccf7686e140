"""Which places work on all steps in one call, as a layer over the axis of time does, and are not to be run at each."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from isofire.errors import ModelError
from isofire.firing.cost.frames import Currents, currents, onset
from isofire.firing.cost.meter import CostMeter, SiteCall
from isofire.firing.cost.summed import is_again, is_lone
from isofire.running import forward

_Change = Callable[[str, Tensor], None]


def worked_on_again(meter: CostMeter, parts: Mapping[str, bool | None]) -> list[str]:
    """Places that see something of a static image all at once, as every step does.

    Parameters
    ----------
    parts
        Place -> whether its calls are steps, and not parts of the image.
    """

    def by_each(name: str, image: list[SiteCall]) -> bool:
        again = is_again(image, meter.steps, stepped=meter.stepped, loops=parts.get(name))
        return not again and any(is_lone(call) and call.real for call in image)

    if meter.steps == 1:
        return []
    return [name for name, tally in meter.sites.items() if any(by_each(name, image) for image in tally.images)]


def work_on_all_steps(model: nn.Module, inputs: Tensor, sites: Collection[str]) -> set[str]:
    """Those of some places of which a part of what they give reaches neurons later than the rest does.

    Told by changing one number of it, the last of an image: what is repeated for every step is changed in the first.

    Parameters
    ----------
    inputs
        A few static images, as the model takes them.
    sites
        Places that see something of the image, all at once.
    """
    if not sites:
        return set()
    shapes: dict[str, torch.Size] = {}
    before = _currents(model, inputs, lambda site, output: shapes.update({site: output.shape}))
    return {site for site in sites if site in shapes and _reaches_later(model, inputs, before, site, shapes[site])}


def _reaches_later(model: nn.Module, inputs: Tensor, before: Currents, site: str, shape: torch.Size) -> bool:
    def found(places: tuple[Any, ...], high: bool) -> int | None:
        def change(place: str, output: Tensor) -> None:
            if place == site and output.ndim == len(shape):
                output[places] = output.max() + 1 if high else output.min() - 1

        try:
            return onset(before, _currents(model, inputs, change))
        except ModelError:
            return None

    rest = found((), True) or 0
    for places in _last_places(shape):
        at = found(places, True)
        if at is not None:
            # a code by time has the largest numbers first, or the least
            return at > rest and (found(places, False) or 0) > rest
    return False


def _last_places(shape: torch.Size) -> Iterator[tuple[Any, ...]]:
    """The last number, and where that reaches nothing, the last ones along each axis."""
    yield (-1,) * len(shape)
    for axis in range(len(shape)):
        yield (*[slice(None)] * axis, -1)


def _currents(model: nn.Module, inputs: Tensor, change: _Change) -> Currents:
    def run(network: nn.Module, given: Tensor) -> Any:
        meter = CostMeter(network)
        meter.trace.change = change
        with meter.counting():
            return meter.trace.run(given, forward)

    return currents(model, inputs, run)
