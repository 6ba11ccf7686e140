"""How far a layer's firing is from what it should be: what levels and corrections are chosen by."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

Objective = Literal["paired", "emd"]


def firing_error(counts: Tensor, target: Tensor, objective: Objective = "paired") -> Tensor:
    """Error of each channel, `[C]` float64, in spikes per neuron over all images and steps.

    Parameters
    ----------
    counts, target
        `[C, P]`: spikes of each neuron, as it fires and as it should.
    objective
        "paired": mean |change| of the neurons. "emd": the Earth Mover's Distance between the channel's neurons, which
        lets them change places.

    Examples
    --------
    >>> swapped = torch.tensor([[3, 1]])
    >>> firing_error(swapped, torch.tensor([[1, 3]])), firing_error(swapped, torch.tensor([[1, 3]]), "emd")
    (tensor([2.], dtype=torch.float64), tensor([0.], dtype=torch.float64))
    """
    if objective == "emd":
        counts, target = counts.sort(1).values, target.sort(1).values
    return (counts - target).abs().double().mean(1)
