"""A network of which it is not known what a spike costs, and what is known of it all the same."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from isofire.adapters import refuse_integers
from isofire.errors import ModelError
from isofire.firing.cost.counting.meter import CostMeter
from isofire.firing.cost.left_out import LeftOut, strangers
from isofire.running import evaluating, forward


@dataclass(frozen=True)
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
    except ModelError:
        unsure = f"whether it has neurons that isofire does not know could not be found out ({reason})"
        return Unreached(reason, (LeftOut(name="(model)", reason=unsure, share=None, of="neurons"),))
    known = sum(tally.neurons for tally in meter.spikes.values())
    return Unreached(reason, strangers(model, meter.strangers, known, "rate"))
