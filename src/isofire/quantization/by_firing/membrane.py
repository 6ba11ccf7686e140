"""How one layer's membranes are stored: levels from the states it has, or chosen by how it then fires."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from isofire.neurons import MembraneQuantizer
from isofire.quantization.by_firing.levels import States, search
from isofire.quantization.by_firing.replay import Replay
from isofire.quantization.contract import own_code, try_states
from isofire.quantization.plan import LayerAssignment
from isofire.quantizers.levels import Levels
from isofire.quantizers.observer import RangeObserver
from isofire.quantizers.setting import MembraneSetting
from isofire.quantizers.table import Table

RARE = 0.005
"""Share of the states at either end that levels need not reach."""


def fit_membrane_(
    membrane: MembraneQuantizer,
    choice: LayerAssignment,
    replay: Replay,
    errors: Callable[[Tensor], Tensor],
) -> tuple[Tensor, Tensor] | None:
    """Calibrate the membrane quantizer that the replayed neuron carries.

    Parameters
    ----------
    errors
        Error of each channel, for spikes `[C, P]`.

    Returns
    -------
    tuple of Tensor, or None
        Smallest and largest full-precision state of each group; None where nothing was chosen from the states.

    Raises
    ------
    SpecError
        If levels are to be chosen before the threshold for neurons of several thresholds, or of several spikes a step.
    ModelError
        If the quantizer does not do what quantizers promise; see `isofire.quantization.contract`.
    """
    setting = choice.of(MembraneSetting)
    if not setting.is_estimated:
        return None
    observer, counts = observed(membrane, replay)
    low, high = observer.extremes().unbind(1)
    if not setting.chosen_by_firing:
        with own_code(choice, setting, "calibrate"):
            setting.calibrate(membrane.quantizer, observer)
        try_states(choice, membrane.quantizer, observer)
        return low, high
    quantizer = membrane.quantizer
    assert isinstance(quantizer, Levels)

    def of_table(table: Table) -> Tensor:
        quantizer.set_table(table)
        return errors(replay.counts())

    rows = len(counts) if setting.granularity == "channel" else 1
    count = quantizer.values.shape[1]
    quantizer.set_table(search(of_table, count, states(membrane, replay, observer), rows))
    return low, high


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
    neuron = replay.adapter.facts(replay.neuron)
    rest, threshold, edge = neuron.rest, neuron.rest + replay.unit, None
    if membrane.placement == "pre_fire":
        neuron.require_one_spike("firing")
        threshold, edge = neuron.lowest_firing, neuron.fire_edge
    soft = neuron.v_reset is None
    return States(rest=rest, threshold=threshold, low=min(low, rest), high=max(high, rest), fire_edge=edge, soft=soft)
