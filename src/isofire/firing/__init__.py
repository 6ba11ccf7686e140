"""Firing behaviour: recording spike counts, and measuring how far two networks' firing is apart."""

from isofire.firing.aggregate import emd_pooled, layer_mean, neuron_weighted, overall_drift
from isofire.firing.beside import Beside, compare_several
from isofire.firing.compare import compare, observe
from isofire.firing.comparison import Comparison
from isofire.firing.counts import SpikeCounts, Spikes
from isofire.firing.distance import Drift, decompose, emd, emd_from_counts, paired_mae, spearman
from isofire.firing.drift import LayerDrift, layer_drift
from isofire.firing.measures import MEASURES, Firing, Measure, register_measure
from isofire.firing.observation import Observation
from isofire.firing.rates import Transitions, alive_dead_transitions, dead_share, mean_firing_rate
from isofire.firing.record import FiringRecorder, spiking_layers
from isofire.neurons.counting import add_counts, zero_counts

__all__ = [
    "MEASURES",
    "Beside",
    "Comparison",
    "Drift",
    "Firing",
    "FiringRecorder",
    "LayerDrift",
    "Measure",
    "Observation",
    "SpikeCounts",
    "Spikes",
    "Transitions",
    "add_counts",
    "alive_dead_transitions",
    "compare",
    "compare_several",
    "dead_share",
    "decompose",
    "emd",
    "emd_from_counts",
    "emd_pooled",
    "layer_drift",
    "layer_mean",
    "mean_firing_rate",
    "neuron_weighted",
    "observe",
    "overall_drift",
    "paired_mae",
    "register_measure",
    "spearman",
    "spiking_layers",
    "zero_counts",
]
