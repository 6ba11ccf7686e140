"""How a layer's firing differs between two recordings of the same network on the same images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from isofire.errors import ModelError
from isofire.firing.counts import SpikeCounts
from isofire.firing.measures import MEASURES, Firing
from isofire.firing.rates import PAPER_CUT, Transitions, alive_dead_transitions


@dataclass(frozen=True, kw_only=True)
class LayerDrift:
    """Firing of one layer in the quantized network against the baseline (`_fp`).

    Each value is an attribute too: `drift.emd` is `drift.values["emd"]`. isofire's own are `mfr`, `dead_00`, `dead_01`
    and `dead_05` (shares of neurons with rate 0, < 0.01 and < 0.05, the paper's cut), each also of the baseline, and
    `emd = shift + shape`, `paired_mae = shift + shape + reshuffle` and `spearman`, NaN where all rates of a network are
    equal; see `isofire.firing.measures`.

    Parameters
    ----------
    layer, neurons
        Name of the neuron module and its number of neurons.
    values
        Every registered measure's, by name.
    transitions
        Neurons that died or revived at the paper's cut.
    """

    layer: str
    neurons: int
    values: Mapping[str, float]
    transitions: Transitions

    def __getattr__(self, name: str) -> float:
        # a copy that has no fields yet must not ask itself for them
        if name != "values" and name in self.values:
            return self.values[name]
        raise AttributeError(f"{type(self).__name__} has no value {name!r}")

    def to_dict(self) -> dict[str, Any]:
        """Plain values: "layer", "neurons", each measure's, and "transitions"."""
        found = {"layer": self.layer, "neurons": self.neurons, **self.values}
        return {**found, "transitions": self.transitions._asdict()}


def layer_drift(baseline: SpikeCounts, quantized: SpikeCounts, layer: str) -> LayerDrift:
    """Compare one layer neuron by neuron, in whole numbers up to the last division.

    Raises
    ------
    ModelError
        If the recordings do not belong together, see `check_match`.
    """
    check_match(baseline, quantized)
    before, after = firing_of(baseline, layer), firing_of(quantized, layer)
    values: dict[str, float] = {}
    for measure in MEASURES.values():
        values |= measure.layer_values(before, after, f"layer {layer!r}")
    return LayerDrift(
        layer=layer,
        neurons=before.counts.size,
        values=values,
        transitions=alive_dead_transitions(before.rates, after.rates, PAPER_CUT),
    )


def firing_of(counts: SpikeCounts, layer: str | None = None) -> Firing:
    """What a measure is a function of: the spikes of a layer, or of all layers one after the other."""
    return Firing(counts.per_neuron(layer).numpy(), counts.denominator)


def check_match(baseline: SpikeCounts, quantized: SpikeCounts) -> None:
    """Refuse two recordings that cannot be compared neuron by neuron.

    Raises
    ------
    ModelError
        If layers, neuron shapes, T or the number of images differ.
    """
    difference = baseline.difference(quantized)
    if difference is None and baseline.n_images != quantized.n_images:
        difference = f"{baseline.n_images} against {quantized.n_images} images"
    if difference is not None:
        raise ModelError(
            "baseline and quantized model must have the same neurons, under the same names, and see the same images: "
            f"{difference}"
        )
