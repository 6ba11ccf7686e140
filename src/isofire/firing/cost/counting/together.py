"""Whether images can go through a network in batches, so that what belongs to which of them is known."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from isofire.errors import ModelError
from isofire.firing.cost.counting.meter import CostMeter
from isofire.firing.cost.counting.tally import SiteCall
from isofire.firing.record import spiking_adapters
from isofire.running import forward
from isofire.telling import pick


@dataclass(frozen=True)
class Together:
    """How images go through the network: in batches, one by one, or one by one in a batch of repetitions.

    In a batch, what belongs to which image has to be told from the axes of what arrives at each place. That is trusted
    where it gives for a few images what each gives alone, and not of a batch whose images decide what is done with
    which of them, by rows that they take or sort.

    Parameters
    ----------
    together
        Whether in batches.
    copies
        Of each image, where one alone is not taken.
    steps
        T: batches of as many images are not run together.
    strangers
        Whether modules fire that isofire does not know as neurons.
    """

    together: bool
    copies: int = 1
    steps: int = 0
    strangers: bool = False

    def run(self, meter: CostMeter, inputs: Tensor, axis: int) -> None:
        """All images of a batch."""
        images = inputs.shape[axis]
        # as many images as steps would leave open which is which
        if self.together and images > 1 and images != self.steps and meter.run(inputs, images, forward, wary=True):
            return
        for place in range(images):
            image = inputs.narrow(axis, place, 1).repeat_interleave(self.copies, axis)
            meter.run(image, self.copies, forward, alike=True)


def together_for(model: nn.Module, inputs: Tensor, axis: int) -> Together:
    images, chosen = inputs.shape[axis], pick(inputs, axis, 3)
    sizes = {size for neuron, adapter in spiking_adapters(model).values() if (size := adapter.batch_size(neuron))}
    if sizes:
        return _in_copies(model, chosen, axis, max(sizes))
    alone = CostMeter(model)
    try:
        with alone.counting():
            Together(together=False).run(alone, chosen.narrow(axis, 0, min(2, images)), axis)
    except ModelError:
        if images == 1:
            raise
        return _in_copies(model, chosen, axis, images)
    few = next((n for n in (2, 3) if n != alone.steps), 2)
    if images < few:
        return Together(together=False, strangers=bool(alone.strangers))
    together = CostMeter(model)
    try:
        with together.counting():
            together.run(chosen.narrow(axis, 0, few), few, forward)
    except ModelError:
        return Together(together=False, strangers=bool(alone.strangers))
    # equal sums of few images can be chance where rows are guessed to be images
    agree = not together.unsure and _agree(alone, together)
    # where rows are taken or sorted by what images made, whose a row is depends on the images beside it
    agree = agree and not together.trace.by_data
    if agree and together.trace.uses.read_by is not None:
        # where Python reads what images made, it may decide by all of them what is done with each
        agree = _agree_on_all(model, inputs.narrow(axis, 0, images - (images == alone.steps)), axis)
    return Together(together=agree, steps=alone.steps, strangers=bool(alone.strangers))


def _in_copies(model: nn.Module, inputs: Tensor, axis: int, copies: int) -> Together:
    """One by one, each so many times in a batch."""
    meter, way = CostMeter(model), Together(together=False, copies=copies)
    with meter.counting():
        way.run(meter, inputs.narrow(axis, 0, 1), axis)
    return replace(way, strangers=bool(meter.strangers))


def _agree_on_all(model: nn.Module, inputs: Tensor, axis: int) -> bool:
    """Whether each image of a batch costs the same alone."""
    alone, together = CostMeter(model), CostMeter(model)
    try:
        with alone.counting():
            Together(together=False).run(alone, inputs, axis)
        with together.counting():
            together.run(inputs, inputs.shape[axis], forward)
    except ModelError:
        return False
    return alone.sites.keys() == together.sites.keys() and all(
        len(one) == len(other) and all(map(_equal, one, other))
        for name, tally in alone.sites.items()
        for one, other in zip(tally.images, together.sites[name].images, strict=True)
    )


def _agree(alone: CostMeter, together: CostMeter) -> bool:
    """Whether two images cost the same alone and in a batch, in every place."""
    if list(alone.sites) != list(together.sites):
        return False
    for name, tally in alone.sites.items():
        for one, other in zip(tally.images, together.sites[name].images, strict=False):
            if len(one) != len(other) or not all(_equal(a, b) for a, b in zip(one, other, strict=True)):
                return False
    return True


def _equal(a: SiteCall, b: SiteCall) -> bool:
    return a.sums.shape == b.sums.shape and torch.allclose(a.sums, b.sums, rtol=1e-9)
