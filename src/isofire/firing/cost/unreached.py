"""A network of which it is not known what a spike costs, and what is known of it all the same."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from isofire.adapters import from_rest, refuse_integers
from isofire.errors import ModelError
from isofire.firing.cost.counting.meter import CostMeter
from isofire.firing.cost.left_out import LeftOut, strangers
from isofire.firing.cost.synops_per_spike import SynopsPerSpike
from isofire.running import evaluating, forward
from isofire.running.call import is_lacking


@dataclass
class Unreached:
    """Why there are no synaptic operations of a spike.

    Parameters
    ----------
    reason
        In words.
    unknown_neurons
        Modules that give spikes and are no neurons that isofire knows, so that no rate holds them.
    """

    reason: str
    unknown_neurons: tuple[LeftOut, ...] = ()

    def __str__(self) -> str:
        return self.reason


def runs(model: nn.Module, inputs: Tensor) -> bool:
    """Whether a network takes as many images as a batch holds, on the device where it is."""
    try:
        with evaluating(model), from_rest(model), torch.no_grad():
            forward(model, inputs)
    except ModelError:
        return False
    return True


def also(found: SynopsPerSpike | Unreached, before: SynopsPerSpike | Unreached) -> SynopsPerSpike | Unreached:
    """What was found, with the unknown neurons that other images showed before."""
    named = {item.name for item in found.unknown_neurons}
    found.unknown_neurons += tuple(item for item in before.unknown_neurons if item.name not in named)
    return found


def unreached(model: nn.Module, inputs: Tensor, images: int, reason: str) -> Unreached:
    """Look for neurons that isofire does not know, where `reach` failed; say so where that fails too.

    Parameters
    ----------
    inputs, images
        A batch as the model takes it, where the model is, and how many images it holds.
    """
    try:
        refuse_integers(model)
    except ModelError:
        # of integers nothing but known neurons is made
        return Unreached(reason)
    meter = CostMeter(model)
    try:
        with evaluating(model), meter.counting():
            meter.run(inputs, images, forward)
    except (ModelError, RuntimeError) as error:
        if not (isinstance(error, ModelError) or is_lacking(error)):
            raise
        unsure = f"whether it has neurons that isofire does not know could not be found out ({reason})"
        return Unreached(reason, (LeftOut(name="(model)", reason=unsure, share=None, of="neurons"),))
    known = sum(tally.neurons for tally in meter.spikes.values())
    return Unreached(reason, strangers(model, meter.strangers, known, "rate"))
