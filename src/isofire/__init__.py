"""isofire: quantize spiking neural networks, and keep their firing."""

from isofire import data, firing, models, neurons, quantizers, training
from isofire.errors import CheckpointError, DataError, IsofireError, ModelError, OutputError, SpecError
from isofire.firing import (
    Comparison,
    FiringRecorder,
    SpikeCounts,
    compare,
    dead_share,
    emd,
    mean_firing_rate,
)
from isofire.lookup import fast
from isofire.quantization import calibrate, convert, explain, integer_weights, prepare, quantize_, signed_weights
from isofire.spec import QuantSpec
from isofire.sweep import load_results

__version__ = "0.2.0"

__all__ = [
    "CheckpointError",
    "Comparison",
    "DataError",
    "FiringRecorder",
    "IsofireError",
    "ModelError",
    "OutputError",
    "QuantSpec",
    "SpecError",
    "SpikeCounts",
    "calibrate",
    "compare",
    "convert",
    "data",
    "dead_share",
    "emd",
    "explain",
    "fast",
    "firing",
    "integer_weights",
    "load_results",
    "mean_firing_rate",
    "models",
    "neurons",
    "prepare",
    "quantize_",
    "quantizers",
    "signed_weights",
    "training",
]
