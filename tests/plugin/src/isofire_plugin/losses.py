"""A loss: a price on firing itself."""

from torch import Tensor, stack

from isofire.training.losses import Loss
from isofire.training.step import Need, Step


class SpikePrice(Loss, frozen=True, kw_only=True):
    """Mean firing rate beyond what is free, averaged over layers.

    Parameters
    ----------
    free
        Spikes per neuron per step that cost nothing.
    """

    free: float = 0.0

    def asks(self) -> frozenset[Need]:
        return frozenset({"rates"})

    def __call__(self, step: Step) -> Tensor:
        return stack([(rates.mean() - self.free).relu() for rates in step.rates.values()]).mean()
