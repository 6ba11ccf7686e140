"""Networks of isofire neurons, their files, and trained ones."""

from isofire.models.build import build
from isofire.models.pretrained import open_model, pretrained
from isofire.models.sew_resnet import SEWBlock, SEWResNet, count_neurons, sew_resnet8, sew_resnet18
from isofire.models.store import load_model, save_model

__all__ = [
    "SEWBlock",
    "SEWResNet",
    "build",
    "count_neurons",
    "load_model",
    "open_model",
    "pretrained",
    "save_model",
    "sew_resnet8",
    "sew_resnet18",
]
