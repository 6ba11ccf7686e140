"""Networks of other libraries' neurons as networks of isofire's, which see all steps at once and have integers."""

from __future__ import annotations

import copy
from collections.abc import Iterable

from torch import nn

from isofire.adapters.registry import adapter_of
from isofire.errors import ModelError
from isofire.neurons import Neuron, PerStep


def as_isofire(layers: Iterable[nn.Module]) -> nn.Sequential:
    """Layers and neurons, one after the other, as a network of isofire's neurons.

    Parameters
    ----------
    layers
        An `nn.Sequential`, or the parts of a network of yours in the order in which its loop over steps calls them,
        such as `[net.fc1, net.lif1, net.fc2, net.lif2]`. They are copied.

    Returns
    -------
    nn.Sequential
        From frames [T, N, ...] to spikes [T, N, ...]. Part k of the layers is its part "k": layers of torch inside
        `PerStep`, neurons as isofire's with the same spikes.

    Raises
    ------
    ModelError
        If a neuron has no counterpart among isofire's; says which and why.

    Examples
    --------
    >>> as_isofire([nn.Linear(4, 2), snntorch.Leaky(beta=0.9)])  # doctest: +SKIP
    """
    made: list[nn.Module] = []
    for place, layer in enumerate(layers):
        adapter = adapter_of(layer)
        if isinstance(layer, Neuron | PerStep):
            made.append(copy.deepcopy(layer))
        elif adapter is None:
            made.append(PerStep(copy.deepcopy(layer)))
        else:
            found = adapter.counterpart(layer)
            if isinstance(found, str):
                raise ModelError(f"layer {place} ({type(layer).__name__}): {found}")
            made.append(found)
    return nn.Sequential(*made).eval()
