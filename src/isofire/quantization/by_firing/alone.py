"""Whether a layer that is tried alone fires as it does in its network.

It does not where the network carries something of what the layer gave to the layer's next step: a state that the
network changes between two steps, its spikes through weights that are no part of the neuron.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from isofire.adapters import Adapter
from isofire.quantization.by_firing.fired import firing_of
from isofire.quantization.by_firing.replay import Replay

_SHARE = 0.001
"""Of the spikes, that may differ: a bias is added to stored currents in another order than a network adds it."""


def unlike(
    model: nn.Module, name: str, layer: tuple[nn.Module, Adapter], replay: Replay, batches: Sequence[Tensor]
) -> str | None:
    """What is to be said of a layer that fires otherwise in its network than tried alone; None if it does not."""
    if len(replay.batches[0]) == 1:
        # all steps at once: nothing comes back between them
        return None
    alone = Replay(*layer, replay.batches[:1]).counts()
    really = firing_of(model, batches[:1]).counts[name]
    apart, fired = int((alone - really).abs().sum()), int(alone.sum() + really.sum())
    if apart <= 1 + _SHARE * fired:
        return None
    return (
        f"tried alone it gives {int(alone.sum())} spikes where in the network it gives {int(really.sum())} "
        f"({apart} apart, on the first images): what it is given in a step depends on what it gave in an earlier one, "
        "as where a state is changed between two steps or spikes come back to their layer. Levels, biases and the "
        "drift told here are of the layer alone: look at isofire.compare, or take a method that does not go layer by "
        "layer"
    )
