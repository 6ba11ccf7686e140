"""Training: a loop one can read, with schedules, losses, exact checkpoints and several processes."""

from isofire.training.checkpoint import architecture, load_weights, save_weights
from isofire.training.evaluation import evaluate
from isofire.training.loop import train
from isofire.training.losses import Loss, mean_logit, readout, register_loss, tet
from isofire.training.recipe import Recipe
from isofire.training.records import EpochRecord, Evaluation, TrainingResult
from isofire.training.schedule import learning_rate
from isofire.training.step import Need, Pass, Step

__all__ = [
    "EpochRecord",
    "Evaluation",
    "Loss",
    "Need",
    "Pass",
    "Recipe",
    "Step",
    "TrainingResult",
    "architecture",
    "evaluate",
    "learning_rate",
    "load_weights",
    "mean_logit",
    "readout",
    "register_loss",
    "save_weights",
    "tet",
    "train",
]
