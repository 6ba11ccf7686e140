"""Networks of other libraries' neurons as networks of isofire's, which see all steps at once and have integers."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Iterable, Mapping

import torch
from torch import nn

from isofire.adapters.base import Adapter
from isofire.adapters.facts import twin_of
from isofire.adapters.registry import adapter_of, find_neurons
from isofire.adapters.self_test import trial_currents
from isofire.errors import ModelError
from isofire.neurons import Neuron, PerStep, Repeat

_ROUNDED = 0.01
"""Share of a trial's spikes that the rounding of float32 may move."""


def as_isofire(layers: Iterable[nn.Module] | Mapping[str, nn.Module]) -> nn.Sequential:
    """Layers and neurons, one after the other, as a network of isofire's neurons.

    Parameters
    ----------
    layers
        An `nn.Sequential`, or the parts of a network of yours in the order in which its loop over steps calls them,
        such as `[net.fc1, net.lif1, net.fc2, net.lif2]`, or by name, `{"fc1": net.fc1, "lif1": net.lif1}`, so that
        `isofire.compare(net, ...)` finds the same layers in both. They are copied. `isofire.neurons.Repeat(steps)`
        before them shows images for so many steps.

    Returns
    -------
    nn.Sequential
        From frames [T, N, ...], or behind `Repeat` images [N, ...], to spikes [T, N, ...]. Part k of the layers is its
        part "k", or has its name: layers of torch inside `PerStep`, neurons as isofire's with the same spikes.

    Raises
    ------
    ModelError
        If a neuron has no counterpart among isofire's, or a hook of its own, or fires otherwise than its counterpart in
        a trial; says which and why.

    Examples
    --------
    >>> as_isofire([nn.Linear(4, 2), snntorch.Leaky(beta=0.9)])  # doctest: +SKIP
    """
    if isinstance(layers, nn.Sequential):
        layers = dict(layers.named_children())
    pairs = layers.items() if isinstance(layers, Mapping) else enumerate(layers)
    named: dict[str, nn.Module] = {str(name): layer for name, layer in pairs}
    made: dict[str, nn.Module] = {}
    for name, layer in named.items():
        adapter = adapter_of(layer)
        if isinstance(layer, Neuron | PerStep | Repeat):
            made[name] = copy.deepcopy(layer)
        elif adapter is None:
            if inside := list(find_neurons(layer)):
                raise ModelError(
                    f"layer {name} ({type(layer).__name__}) has neurons inside ({', '.join(inside)}); give its layers "
                    "themselves, in the order in which they run"
                )
            made[name] = PerStep(copy.deepcopy(layer))
        else:
            found = adapter.counterpart(layer)
            found = found if isinstance(found, str) else _unlike(layer, adapter, found) or found
            if isinstance(found, str):
                raise ModelError(f"layer {name} ({type(layer).__name__}): {found}")
            made[name] = found
    return nn.Sequential(OrderedDict(made)).eval()


def _unlike(neuron: nn.Module, adapter: Adapter, found: Neuron) -> str | None:
    """Why what an adapter takes for the neuron's counterpart is none: both are run on the same currents."""
    if neuron._forward_hooks or neuron._forward_pre_hooks:
        return "it has a hook, which a counterpart would leave out; take it off"
    twin = twin_of(type(neuron).__name__, neuron, adapter).eval()
    currents = trial_currents(twin, adapter)
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        try:
            spikes = adapter.drive(twin, currents)
        except (AttributeError, IndexError, RuntimeError, TypeError, ValueError) as error:
            return f"its own forward fails in a trial ({type(error).__name__}: {error})"
        others = found.eval()(currents)
    apart = int((spikes != others).sum())
    if apart <= _ROUNDED * spikes.numel():
        return None
    return (
        f"{apart} of {spikes.numel()} spikes of a trial are not those of {type(found).__name__}, as where a class has "
        "methods of its own, or a neuron was changed after it was built"
    )
