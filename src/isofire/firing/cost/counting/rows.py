"""Which places work on parts of an image whose number is that of the steps: patches or tokens, T of them.

Sizes alone take such rows for steps. The network is asked: of steps the last one reaches neurons later than the first,
or holds alone what comes of spikes of the last step.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from isofire.adapters import Fired, Layout
from isofire.errors import ModelError
from isofire.firing.cost.counting.all_steps import work_on_all_steps
from isofire.firing.cost.counting.meter import CostMeter
from isofire.firing.cost.counting.reuse import calls_on_noise, on_noise
from isofire.firing.cost.counting.tally import ALL, REAL, Lying, SiteCall
from isofire.firing.cost.events.events import Events
from isofire.running import device_of, drawing

Run = Callable[[CostMeter, Tensor], None]
_MOST = 60
"""Runs for layers on what differs from step to step without spikes: three a layer."""


def rows_of(model: nn.Module, inputs: Tensor, run: Run, *, frames: bool) -> tuple[Lying, frozenset[str]]:
    """What the rows are that by their number are steps, or may hold them, and where the network does not tell it.

    Parameters
    ----------
    inputs
        A few images, as the model takes them.
    run
        Runs inputs with a meter that counts.
    frames
        Whether the inputs hold a part for each step.
    """
    meter = CostMeter(model, probing=True)
    with drawing(0, device_of(model, inputs.device)), meter.counting():
        run(meter, inputs)
    rowed = {
        name: [call for image in tally.images for call in image if call.sums.shape[1] == meter.steps > 1]
        for name, tally in meter.sites.items()
    }
    repeated = {} if frames else _repeated(model, inputs, run, meter.repeated.ways)
    # what is the same at each step but for rounding is repeated, and needs no asking
    open_ = {name: calls for name, calls in rowed.items() if "steps" not in repeated.get(name, ())}
    told = {} if frames else _of_images(model, inputs, run, open_, strangers=bool(meter.strangers))
    spiking = frozenset(name for name, calls in rowed.items() if any(map(_of_spikes, calls)))
    parts = {name for name, steps in told.items() if steps is False}
    parts |= _of_neurons(model, inputs, run, meter.steps, spiking) if spiking else set()
    ways = {name: way for name, found in repeated.items() for way in ("last", "first", "steps") if way in found}
    lying = Lying(parts, **{way: {name for name in ways if ways[name] == way} - parts
                            for way in ("first", "last", "steps")})  # fmt: skip
    return lying, frozenset(name for name, steps in told.items() if steps is None) - parts


def _repeated(model: nn.Module, inputs: Tensor, run: Run, ways: dict[str, set[str]]) -> dict[str, set[str]]:
    """Place -> how its rows can be read as the same at each step, of the ways in which they can with the images; parts
    of these may be equal by chance, not so random ones."""
    if not any(ways.values()):
        return {}
    meter = on_noise(model, inputs, run, False, probing=True) or on_noise(model, inputs, run, True, probing=True)
    found = {} if meter is None else meter.repeated.ways
    return {name: its & found.get(name, set()) for name, its in ways.items()}


def _of_images(
    model: nn.Module, inputs: Tensor, run: Run, rowed: dict[str, list[SiteCall]], *, strangers: bool
) -> dict[str, bool | None]:
    """Places that see rows of a static image -> whether these are steps."""
    asked = {name for name, calls in rowed.items() if any(map(_of_image, calls))}
    alike = {name for name in asked if not any(map(_differ, rowed[name]))}
    if alike:
        # parts may be equal by chance, an image that is repeated is so whatever it holds
        noise = calls_on_noise(model, inputs, run, False) or calls_on_noise(model, inputs, run, True)
        alike = {name for name in alike if not any(_differ(call) for image in noise.get(name, ()) for call in image)}
    return work_on_all_steps(model, inputs, asked - alike, _MOST, strangers=strangers)


def _of_neurons(model: nn.Module, inputs: Tensor, run: Run, steps: int, sites: frozenset[str]) -> set[str]:
    """Places whose rows are not known to be steps: spikes of one step come to several of them, or none are seen to."""
    left, rows_seen = set(sites), set[str]()
    try:
        # behind a delay the last step's spikes come to none
        for step in dict.fromkeys(max(0, place) for place in (steps - 1, steps - 2, steps - 4, steps // 2, 0)):
            if not left:
                break
            # a pool gives the same of many spikes as of all
            runs = [_events(model, inputs, run, steps, step, chance) for chance in (0.02, 0.3, 0.9)]
            for name in left.intersection(*runs):
                first, *others = (came[name] for came in runs)
                rows = int(torch.stack([first != other for other in others]).any(0).sum())
                left = left - {name} if rows else left
                rows_seen |= {name} if rows > 1 else set()
    except ModelError:
        # it takes no other spikes than its own
        pass
    return rows_seen | left


def _events(model: nn.Module, inputs: Tensor, run: Run, steps: int, step: int, chance: float) -> dict[str, Tensor]:
    """Place -> events that come to each of its rows, [T], where neurons fire in one step alone, each by that chance."""
    meter = _OneStep(model, step, chance)
    with drawing(0, device_of(model, inputs.device)), meter.counting():
        run(meter, inputs)
    return {
        name: sum((call.sums[ALL] for image in tally.images for call in image if call.sums.shape[1] == steps),
                  torch.zeros(steps, dtype=torch.float64))
        for name, tally in meter.sites.items()
    }  # fmt: skip


class _OneStep(CostMeter):
    """A meter of a network whose neurons give chance spikes in one step, and none in the others."""

    def __init__(self, model: nn.Module, step: int, chance: float) -> None:
        super().__init__(model)
        self._step, self._chance = step, chance
        self._numbers = torch.Generator().manual_seed(0)

    def _fired(self, name: str, fired: Fired) -> Events:
        values = fired.values
        spikes = (torch.rand(values.shape, generator=self._numbers) < self._chance).to(values.device)
        if fired.adapter.layout(fired.module) is Layout.STEP:
            spikes &= len(self.spikes[name].calls) == self._step
        else:
            spikes &= fired.step_of_each == self._step
        with torch.no_grad():
            values.copy_(spikes * fired.heights)
        return super()._fired(name, fired)


def _of_image(call: SiteCall) -> bool:
    return call.static is not None and not call.constant and bool(call.sums[[ALL, REAL]].any())


def _differ(call: SiteCall) -> bool:
    return len(set(call.static or ())) > 1


def _of_spikes(call: SiteCall) -> bool:
    return call.static is None and bool(call.sums[ALL].any())
