"""How one layer's membranes are stored: levels from the states it has, or chosen by how it then fires."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from isofire.errors import SpecError
from isofire.neurons import MembraneQuantizer, Neuron
from isofire.quantization.by_firing.levels import States, search
from isofire.quantization.by_firing.replay import Replay
from isofire.quantizers.levels import Levels
from isofire.quantizers.observer import RangeObserver
from isofire.quantizers.setting import MembraneSetting
from isofire.quantizers.table import Table

RARE = 0.005
"""Share of the states at either end that levels need not reach."""


def fit_membrane_(
    membrane: MembraneQuantizer,
    setting: MembraneSetting,
    replay: Replay,
    errors: Callable[[Tensor], Tensor],
) -> None:
    """Calibrate the membrane quantizer that the replayed neuron carries.

    Parameters
    ----------
    errors
        Error of each channel, for spikes `[C, P]`.

    Raises
    ------
    SpecError
        If levels are to be chosen before the threshold for neurons of several thresholds.
    """
    if not setting.is_estimated:
        return
    observer, counts = observed(membrane, replay)
    if not setting.chosen_by_firing:
        setting.calibrate(membrane.quantizer, observer)
        return
    quantizer = membrane.quantizer
    assert isinstance(quantizer, Levels)

    def of_table(table: Table) -> Tensor:
        quantizer.set_table(table)
        return errors(replay.counts())

    rows = len(counts) if setting.granularity == "channel" else 1
    count = quantizer.values.shape[1]
    quantizer.set_table(search(of_table, count, states(membrane, replay, observer), rows))


def observed(membrane: MembraneQuantizer, replay: Replay) -> tuple[RangeObserver, Tensor]:
    """The full-precision states of the replayed neuron, where the membrane's quantizer stands; and its spikes."""
    observer = RangeObserver(membrane.quantizer.granularity, channel_axis=1)
    membrane.observer = observer
    try:
        return observer, replay.counts()
    finally:
        membrane.observer = None


def states(membrane: MembraneQuantizer, replay: Replay, observer: RangeObserver) -> States:
    """What the search must know of these membranes."""
    sample = observer.samples().flatten()
    low, high = (float(torch.quantile(sample[: 1 << 24], share)) for share in (RARE, 1 - RARE))
    rest = replay.neuron.dynamics.rest if isinstance(replay.neuron, Neuron) else 0.0
    thresholds = replay.adapter.threshold(replay.neuron).flatten()
    edge = None
    if membrane.placement == "pre_fire":
        if bool((thresholds != thresholds[0]).any()):
            raise SpecError(
                "levels chosen by firing at pre_fire need one threshold for the layer, which a bin's edge is put at; "
                "use placement 'post_reset'"
            )
        # a value on an edge belongs to the bin below it
        value = np.float32(thresholds[0])
        edge = float(np.nextafter(value, np.float32(-np.inf)) if replay.adapter.fires_at_threshold else value)
    return States(rest=rest, threshold=rest + replay.unit, low=min(low, rest), high=max(high, rest), fire_edge=edge)
