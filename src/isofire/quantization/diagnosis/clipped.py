"""Levels that lie off all states of their layer: what is stored is then one number, whatever the network is given."""

from __future__ import annotations

import logging

import torch
from torch import Tensor, nn

from isofire.adapters import find_neurons, input_axis
from isofire.errors import ModelError
from isofire.quantization.by_firing.fired import firing_of
from isofire.quantization.diagnosis.states import StateTally, counting_states

_LOG = logging.getLogger(__name__)
_FEW = 8


def tell_clipped(model: nn.Module, inputs: Tensor) -> None:
    """Log the layers whose states, on a few of these inputs, all lie on one side beyond their levels."""
    if all(adapter.membrane(neuron) is None for neuron, adapter in find_neurons(model).values()):
        return
    axis = input_axis(model, inputs)
    try:
        found = _tallies(model, inputs.narrow(axis, 0, min(_FEW, inputs.shape[axis])))
    except ModelError:
        # built for one size of batch
        found = _tallies(model, inputs)
    for name, tally in found.items():
        if tally.states and tally.states in (tally.below, tally.above):
            levels = tally.quantizer.levels()
            side = "below the lowest" if tally.below else "above the highest"
            _LOG.warning(
                "calibration: %s: all %s membrane states on a few images lie %s of its levels, which go from %.3g to "
                "%.3g, so that what is stored is always the same; give levels or a range where the states are",
                name, f"{tally.states:,}", side, float(levels.min()), float(levels.max()),
            )  # fmt: skip


@torch.no_grad()
def _tallies(model: nn.Module, inputs: Tensor) -> dict[str, StateTally]:
    with counting_states(model) as tallies:
        firing_of(model, [inputs])
    return dict(tallies)
