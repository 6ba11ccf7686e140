"""Norms with running statistics, and those that take the batch's own in eval mode too."""

from __future__ import annotations

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase

from isofire.errors import ModelError


def statistics_of(model: nn.Module) -> dict[str, _NormBase]:
    """The batch and instance norms of torch's that have running statistics, which they use in eval mode, by name."""
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, _NormBase) and module.running_mean is not None and module.running_var is not None
    }


def refuse_statistics_of_the_batch(model: nn.Module) -> None:
    """Refuse a network, in eval mode, whose batch norms take the statistics of the batch that they are given.

    Raises
    ------
    ModelError
        Names the norm.
    """
    for name, module in model.named_modules():
        if isinstance(module, _BatchNorm) and (module.running_mean is None or module.training):
            why, cure = "it stays in train mode", "let eval() reach it"
            if module.running_mean is None:
                why = "track_running_stats=False"
                cure = (
                    "give it running statistics (track_running_stats=True), and measure them on training images "
                    "(isofire.quantization.reestimate_batch_norm)"
                )
            raise ModelError(
                f"{name!r} ({type(module).__name__}) normalises by the batch it is given, in eval mode too ({why}), so "
                f"that what an image does depends on the images beside it, and no number is the network's own; {cure}"
            )
