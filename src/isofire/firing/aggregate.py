"""From layers to one number for the whole network; each way of doing it answers another question."""

from __future__ import annotations

import math
from collections.abc import Sequence

from isofire.errors import DataError, SpecError
from isofire.firing.counts import SpikeCounts
from isofire.firing.distance import emd_from_counts
from isofire.firing.drift import LayerDrift, check_match, firing_of
from isofire.firing.measures import MEASURES, Combine, columns

_OF_VALUES: tuple[Combine, ...] = ("neurons", "layers", "max")


def layer_mean(values: Sequence[float]) -> float:
    """Mean over layers, each with the same weight, whatever its size.

    Raises
    ------
    DataError
        If there is no layer.
    """
    if not values:
        raise DataError("a mean over layers needs at least one layer, got none")
    return math.fsum(values) / len(values)


def neuron_weighted(values: Sequence[float], neurons: Sequence[int]) -> float:
    """Mean over neurons of a layer value; layers where it is NaN are left out, NaN if that leaves none.

    Raises
    ------
    DataError
        If the lengths differ, there is no layer, or a layer has no neuron.

    Examples
    --------
    >>> neuron_weighted([0.1, 0.4], [300, 100])
    0.175
    """
    if not values or len(values) != len(neurons) or min(neurons) < 1:
        raise DataError(f"values and neurons must go together layer by layer, got {len(values)} and {list(neurons)}")
    known = [(value, n) for value, n in zip(values, neurons, strict=True) if not math.isnan(value)]
    if not known:
        return math.nan
    return math.fsum(value * n for value, n in known) / sum(n for _, n in known)


def emd_pooled(baseline: SpikeCounts, quantized: SpikeCounts) -> float:
    """EMD between the rates of all neurons thrown together; opposite drifts of two layers can cancel in it.

    Never above the neuron-weighted mean of the layers' EMDs. In spikes per neuron per step.

    Raises
    ------
    ModelError
        If the recordings do not belong together.
    """
    check_match(baseline, quantized)
    return emd_from_counts(baseline.per_neuron(), quantized.per_neuron(), baseline.denominator)


def overall_drift(
    layers: Sequence[LayerDrift], baseline: SpikeCounts, quantized: SpikeCounts
) -> dict[str, float | int]:
    """The drift of a whole network: every registered measure, its layers combined as its record says.

    - `mfr`, `dead_*` (and `_fp`): over all neurons, each with the same weight.
    - `emd_layer_mean`: mean of the layers' EMDs, a small layer counting as much as a large one (the paper's, as far as
      it says). `emd_weighted`: weighted by neurons. `emd_pooled`: see there. `emd_max`: the worst layer.
    - `paired_mae`, `shift`, `shape`, `reshuffle`: weighted by neurons, so `paired_mae = shift + shape + reshuffle` and
      `emd_weighted = shift + shape` hold here too. `shift` is the mean of the layers' |change|: opposite shifts of two
      layers do not cancel.
    - `spearman`: within layers, weighted by neurons; layers without an order are left out. Pooling would mostly show
      that layers differ from each other.
    """
    neurons = [layer.neurons for layer in layers]
    found: dict[str, float] = {}
    for measure in MEASURES.values():
        for column, how in measure.overall.items():
            if how == "pooled":
                everywhere = measure.layer_values(firing_of(baseline), firing_of(quantized))
                found |= {column + end: everywhere[measure.name + end] for end in measure.endings}
                continue
            for end in measure.endings:
                found[column + end] = combined(how, [layer.values[measure.name + end] for layer in layers], neurons)
    return {**{key: found[key] for key in columns()}, "n_images": baseline.n_images, "T": baseline.steps}


def combined(how: Combine, values: Sequence[float], neurons: Sequence[int]) -> float:
    """One value of the layers' values, see `isofire.firing.Measure.overall`; layers where it is NaN are left out.

    Not for "pooled", which needs the spikes themselves.

    Raises
    ------
    SpecError
        If it is no way of doing it.
    """
    if how not in _OF_VALUES:
        raise SpecError(f"values of layers are combined by {', '.join(map(repr, _OF_VALUES))}, got {how!r}")
    if how == "neurons":
        return neuron_weighted(values, neurons)
    known = [value for value in values if not math.isnan(value)]
    if not known:
        return math.nan
    return max(known) if how == "max" else layer_mean(known)
