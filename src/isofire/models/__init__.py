"""Networks of isofire neurons, their files, and trained ones."""

from isofire.models.build import build
from isofire.models.pretrained import open_model, pretrained
from isofire.models.sew_resnet import SEWBlock, SEWResNet, sew_resnet8, sew_resnet18
from isofire.models.store import load_model, save_model
from isofire.models.user_code import (
    NamedData,
    build_named,
    drawn_anew,
    fill_named,
    is_named,
    load_named,
    open_named,
    save_named,
    source_hash,
)

__all__ = [
    "NamedData",
    "SEWBlock",
    "SEWResNet",
    "build",
    "build_named",
    "drawn_anew",
    "fill_named",
    "is_named",
    "load_model",
    "load_named",
    "open_model",
    "open_named",
    "pretrained",
    "save_model",
    "save_named",
    "sew_resnet8",
    "sew_resnet18",
    "source_hash",
]
