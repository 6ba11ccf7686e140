"""How a neuron charges, found by running it: H = leak V + gain X."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from isofire.adapters.base import Adapter
from isofire.adapters.facts import Watcher, twin_of
from isofire.errors import ModelError
from isofire.neurons import MembraneQuantizer
from isofire.quantizers import Uniform

_SHARE = 2.0**-6
_SAME = 1e-4


class Charge(NamedTuple):
    """Shares of the stored potential, relative to the rest, and of the input that the next potential holds."""

    leak: float
    gain: float


def charge_of(name: str, neuron: nn.Module, adapter: Adapter) -> Charge:
    """Leak and gain of a layer of neurons whose charge is linear, measured on a copy far below the threshold.

    Raises
    ------
    ModelError
        If the neuron keeps more than its membrane, its charge is not linear or differs between neurons, or nothing of
        the membrane is kept.
    """
    if adapter.states(neuron) != adapter.states(neuron)[:1]:
        raise ModelError(_refusal(name, neuron, f"keeps more than its membrane ({', '.join(adapter.states(neuron))})"))
    twin = twin_of(name, neuron, adapter).double().eval()
    watcher = Watcher()
    watching = MembraneQuantizer(Uniform(8), "pre_fire")
    watching.observer = watcher
    adapter.attach(twin, watching)
    scale = float(adapter.threshold(neuron).abs().max()) * _SHARE
    # image 0: nothing; 1: a current in the first step; 2: twice that
    currents = torch.zeros(2, 3, *adapter.shape(neuron), dtype=torch.float64)
    currents[0, 1], currents[0, 2] = scale, 2 * scale
    with torch.no_grad():
        adapter.drive(twin, currents.to(adapter.threshold(neuron).device))
    first, second = (state - state[:1] for state in watcher.states)
    gain, leak = first[1] / scale, second[1] / first[1]
    linear = torch.allclose(first[2], 2 * first[1], rtol=_SAME) and torch.allclose(second[2], 2 * second[1], rtol=_SAME)
    if not linear or not (_one(gain) and _one(leak)):
        raise ModelError(_refusal(name, neuron, "has no charge of the form leak V + gain X that all its neurons share"))
    if not float(leak.mean()) > 0:
        raise ModelError(_refusal(name, neuron, "keeps nothing of its membrane"))
    return Charge(float(leak.mean()), float(gain.mean()))


def _one(values: Tensor) -> bool:
    return bool(values.isfinite().all()) and torch.allclose(values, values.mean(), rtol=_SAME, atol=0.0)


def _refusal(name: str, neuron: nn.Module, why: str) -> str:
    return (
        f"the membrane of {name!r} cannot share a scale with weights: its {type(neuron).__name__} {why}; take another "
        f"membrane method, or leave it float by a rule (match {name!r}, membrane 'float')"
    )
