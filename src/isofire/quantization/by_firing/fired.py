"""How often each neuron of a network fires on some images."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from isofire.adapters import find_neurons, from_rest, heard
from isofire.quantization.by_firing.replay import spikes_per_neuron
from isofire.running import evaluating, forward


class Fired(NamedTuple):
    """How often each neuron of a network fired.

    Parameters
    ----------
    counts
        Layer of neurons -> `[C, P]` int64, over all images and steps.
    samples
        Layer of neurons -> images times steps that it saw.
    """

    counts: dict[str, Tensor]
    samples: dict[str, int]


def firing_of(model: nn.Module, batches: Iterable[Tensor]) -> Fired:
    """How often each neuron fires over all batches; layers that are not called are not in it."""
    found = Fired({}, {})

    def add(name: str, fired: Tensor) -> None:
        spikes = spikes_per_neuron(fired)
        found.counts[name] = found.counts[name] + spikes if name in found.counts else spikes
        found.samples[name] = found.samples.get(name, 0) + fired.shape[0] * fired.shape[1]

    with heard(find_neurons(model), add), torch.no_grad(), evaluating(model), from_rest(model):
        for inputs in batches:
            forward(model, inputs)
    return found
