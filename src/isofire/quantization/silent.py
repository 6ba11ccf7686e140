"""Layers of neurons that calibrated quantizers keep from firing, told with why."""

from __future__ import annotations

import logging

from torch import Tensor, nn

from isofire.adapters import input_axis
from isofire.errors import DataError, ModelError
from isofire.quantization.by_firing.bypass import Bypass
from isofire.quantization.by_firing.fired import firing_of
from isofire.quantization.diagnosis.fault import LEAST_SPIKES
from isofire.quantization.diagnosis.silence import why_silent

_FEW = 8

_LOG = logging.getLogger(__name__)


def name_silent(model: nn.Module, batches: list[Tensor]) -> None:
    """Log the layers of neurons that calibrated quantizers keep from firing on these inputs, and why."""
    # a layer that fires on a few images is not silent on all, and mostly all layers do
    if not batches or not _silent_on_few(model, batches[0]) or not (silent := _silent(model, batches)):
        return
    with Bypass(model):
        targets = firing_of(model, batches).counts
    # a layer that is silent by itself is not the quantizers' doing
    gone = [name for name in silent if int(targets[name].sum()) >= LEAST_SPIKES]
    for fault in why_silent(model, gone, batches) if gone else ():
        _LOG.warning("calibration: %s", fault)


def _silent(model: nn.Module, batches: list[Tensor]) -> list[str]:
    return [name for name, counts in firing_of(model, batches).counts.items() if not bool(counts.any())]


def _silent_on_few(model: nn.Module, inputs: Tensor) -> bool:
    """Whether some layer does not fire on the first images; also where that cannot be told."""
    try:
        axis = input_axis(model, inputs)
        return bool(_silent(model, [inputs.narrow(axis, 0, min(_FEW, inputs.shape[axis]))]))
    except (ModelError, DataError):
        # built for one size of batch
        return True
