"""Losses: on labels, on firing, on a teacher's logits and membranes; by name in recipes, open to other packages."""

from isofire.registry import import_files
from isofire.training.losses.base import LOSSES, Loss, read_loss, register_loss, value_of
from isofire.training.losses.distillation import Logits, Membrane
from isofire.training.losses.firing import EMD, FiringLoss, MeanRate, NeuronLoss, Paired
from isofire.training.losses.task import TET, MeanLogit, check_classes, hits, mean_logit, readout, tet

# each file registers its losses
import_files(__path__, __name__)

__all__ = [
    "EMD",
    "LOSSES",
    "TET",
    "FiringLoss",
    "Logits",
    "Loss",
    "MeanLogit",
    "MeanRate",
    "Membrane",
    "NeuronLoss",
    "Paired",
    "check_classes",
    "hits",
    "mean_logit",
    "read_loss",
    "readout",
    "register_loss",
    "tet",
    "value_of",
]
