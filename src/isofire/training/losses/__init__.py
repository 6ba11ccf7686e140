"""Losses: on labels, on firing, on a teacher's logits and membranes; by name in recipes, open to other packages."""

from isofire.training.losses.base import LOSSES, Loss, read_loss, register_loss
from isofire.training.losses.distillation import Logits, Membrane
from isofire.training.losses.firing import EMD, FiringLoss, MeanRate, NeuronLoss, Paired
from isofire.training.losses.task import TET, MeanLogit, check_classes, hits, mean_logit, readout, tet

for _name, _loss in {
    "mean_logit": MeanLogit,
    "tet": TET,
    "paired": Paired,
    "emd": EMD,
    "mean_rate": MeanRate,
    "membrane": Membrane,
    "logits": Logits,
}.items():
    register_loss(_name, _loss)

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
]
