"""A network of which it is not known what a spike costs, and what is known of it all the same."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor, nn

from isofire.adapters import refuse_integers
from isofire.errors import ModelError
from isofire.firing.cost.counting.meter import CostMeter
from isofire.firing.cost.left_out import LeftOut, strangers
from isofire.running import evaluating, forward
from isofire.running.call import is_lacking


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

    def with_unknown(self, unknown_neurons: tuple[LeftOut, ...]) -> Unreached:
        """The same with other `unknown_neurons`."""
        return replace(self, unknown_neurons=unknown_neurons)


def of_integers(model: nn.Module) -> bool:
    """Whether it is a network of integers, in which there are no neurons but known ones."""
    try:
        refuse_integers(model)
    except ModelError:
        return True
    return False


def unsure(reason: str) -> LeftOut:
    """Stands for neurons that could not be looked for."""
    told = f"whether it has neurons that isofire does not know could not be found out ({reason})"
    return LeftOut(name="(model)", reason=told, share=None, of="neurons")


def unreached(model: nn.Module, inputs: Tensor, images: int, reason: str) -> Unreached:
    """Look for neurons that isofire does not know, where `reach` failed; say so where that fails too.

    Parameters
    ----------
    inputs, images
        A batch as the model takes it, where the model is, and how many images it holds.
    """
    if of_integers(model):
        return Unreached(reason)
    meter = CostMeter(model)
    try:
        with evaluating(model), meter.counting():
            meter.run(inputs, images, forward)
    except (ModelError, RuntimeError) as error:
        if not (isinstance(error, ModelError) or is_lacking(error)):
            raise
        return Unreached(reason, (unsure(reason),))
    known = sum(tally.neurons for tally in meter.spikes.values())
    return Unreached(reason, strangers(model, meter.strangers, known, "rate"))
